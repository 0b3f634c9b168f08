package h2

import "strconv"

// validName wants a token in lower case (RFC 9113 section 8.2.1). A colon is a pseudo-header field
// that came after a regular one.
func validName(s string) string {
	if s == "" {
		return "a field without a name"
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ':':
			return "pseudo-header field " + strconv.Quote(s) + " after a regular one"
		case c >= 'A' && c <= 'Z':
			return "field name " + strconv.Quote(s) + " has upper-case letters"
		case classes[c]&tokenByte == 0:
			return "field name " + strconv.Quote(s) + " has a forbidden character"
		}
	}
	return ""
}

// validPseudo holds the parts of a request line to what they may have in HTTP/1.1, where any other byte
// could end the part or the line.
func validPseudo(f *Field) bool {
	switch f.Name {
	case ":path":
		return all(f.Value, pathByte)
	case ":authority":
		return all(f.Value, authorityByte)
	case ":scheme":
		return f.Value == "http" || f.Value == "https"
	}
	return all(f.Value, tokenByte) // :method, :protocol
}

// class says what a byte may be part of.
type class uint8

const (
	tokenByte     class = 1 << iota // RFC 9110 section 5.6.2
	pathByte                        // wider than RFC 3986, as browsers are
	authorityByte                   // RFC 3986 section 3.2, without userinfo
)

var classes = func() (t [256]class) {
	set := func(chars string, c class) {
		for _, b := range []byte(chars) {
			t[b] |= c
		}
	}
	for c := range 256 {
		if c > ' ' && c != 0x7f && c != '#' {
			t[c] |= pathByte
		}
		if c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' {
			t[c] |= tokenByte | authorityByte
		}
	}
	set("!#$%&'*+-.^_`|~", tokenByte)
	set("-._~%!$&'()*+;=:[]", authorityByte)
	return t
}()

func all(s string, want class) bool {
	for i := 0; i < len(s); i++ {
		if classes[s[i]]&want == 0 {
			return false
		}
	}
	return true
}

// validValue wants no NUL, CR or LF and no white space at either end (RFC 9113 section 8.2.1).
func validValue(s string) bool {
	if s == "" {
		return true
	}
	if first, last := s[0], s[len(s)-1]; first == ' ' || first == '\t' || last == ' ' || last == '\t' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
