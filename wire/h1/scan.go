package h1

import (
	"bytes"
	"encoding/binary"
)

// End finds the end of a head: the length of the head that b begins with, or 0 while more bytes
// are needed. from is how many bytes of b an earlier call has seen already (each byte is looked at
// once however slowly a head arrives). A line that does not end in CRLF is an error at once.
func End(b []byte, from int, l Limits) (int, error) {
	for i := max(from, 0); i < len(b); {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			break
		}
		i += j
		if i == 0 || b[i-1] != '\r' {
			return 0, malformed("a line that ends in a bare LF")
		}
		i++
		if i >= 4 && b[i-3] == '\n' {
			return within(i, l)
		}
	}
	if len(b) >= l.head() {
		return 0, overLimit("the head (bytes)", "head", l.head())
	}
	return 0, nil
}

func within(n int, l Limits) (int, error) {
	if n > l.head() {
		return 0, overLimit("the head (bytes)", "head", l.head())
	}
	return n, nil
}

// class says what a byte may be part of.
type class uint8

const (
	token     class = 1 << iota // RFC 9110 section 5.6.2
	value                       // a field value or a reason phrase: RFC 9110 section 5.5
	target                      // a request target; wider than RFC 3986, as browsers are
	authority                   // RFC 3986 section 3.2, without userinfo
	hex
)

var classes = makeClasses()

func makeClasses() (t [256]class) {
	for c := range 256 {
		if c >= 0x20 && c != 0x7f || c == '\t' {
			t[c] |= value
		}
		if c > 0x20 && c != 0x7f && c != '#' {
			t[c] |= target
		}
		if c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' {
			t[c] |= token | authority
		}
		if c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' {
			t[c] |= hex
		}
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] |= token
	}
	for _, c := range []byte("-._~%!$&'()*+;=:[]") {
		t[c] |= authority
	}
	return t
}

func all(b []byte, want class) bool {
	for _, c := range b {
		if classes[c]&want == 0 {
			return false
		}
	}
	return true
}

// skipToken returns the index of the first byte of b, from i on, that is not of a token.
func skipToken(b []byte, i int) int {
	for i < len(b) && classes[b[i]]&token != 0 {
		i++
	}
	return i
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// skipValue returns the index of the first byte of b, from i on, that is not of a field value;
// eight bytes at a time, since values are most of a head.
func skipValue(b []byte, i int) int {
	for len(b)-i >= 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		control := (x - ones*0x20) &^ x & highs
		y := x ^ ones*0x7f
		if control|(y-ones)&^y&highs != 0 {
			break
		}
		i += 8
	}
	for i < len(b) && classes[b[i]]&value != 0 {
		i++
	}
	return i
}

func trim(b []byte, s Span) Span {
	for s.Start < s.End && blank(b[s.Start]) {
		s.Start++
	}
	for s.Start < s.End && blank(b[s.End-1]) {
		s.End--
	}
	return s
}

func blank(c byte) bool { return c == ' ' || c == '\t' }
