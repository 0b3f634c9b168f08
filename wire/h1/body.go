package h1

import (
	"bytes"
	"fmt"
	"strconv"
)

type kind uint8

const (
	none kind = iota
	length
	chunked
	toEnd
)

// Body finds where a body ends. Its zero value is a message without one.
type Body struct {
	// Guard refuses trailer fields whose lower-case names begin with it; "": none.
	Guard string
	// Keep has the fields of the trailer section kept, for Trailers.
	Keep bool

	trailers []byte // as they came, while Keep is set
	kind     kind
	padded   bool // white space may follow a chunk's size, as old servers send it
	state    state
	left     int64 // bytes of the body or of the chunk; -1 before the first digit of a size
	line     int   // bytes of the chunk line, or of all trailers, so far
	name     [nameSize]byte
	nameAt   int
}

// maxDigits bounds the digits of a chunk's size, zeros before it included: 64 bits.
const maxDigits = 16

// nameSize is how much of a trailer's name is kept: the longest of the forbidden ones.
const nameSize = 24

// state is where the scanner stands in a chunked body (RFC 9112 section 7.1).
type state uint8

const (
	size      state = iota // the hexadecimal digits of a chunk's size
	extension              // after `;`
	sizeLF                 // after the CR of a chunk line
	data                   //
	dataCR                 // after the data
	dataLF                 //
	lineStart              // of the trailer section
	name                   // of a trailer field
	content                // its value
	contentLF              //
	endLF                  // after the CR of the empty line
)

// Done reports whether nothing of the body is missing; for one that the end of the connection ends,
// never.
func (b *Body) Done() bool { return b.kind == none }

// ToEnd reports whether only the end of the connection ends the body.
func (b *Body) ToEnd() bool { return b.kind == toEnd }

// Left returns how many bytes are missing of a body of known length, and 0 for any other.
func (b *Body) Left() int64 {
	if b.kind == length {
		return b.left
	}
	return 0
}

// Skip takes n bytes of a body of known length that were forwarded unseen (by splice, say).
func (b *Body) Skip(n int64) {
	if b.left -= n; b.left == 0 {
		b.kind = none
	}
}

// Take returns how many bytes of p belong to the body, framing included: what is to be forwarded.
func (b *Body) Take(p []byte) (n int, err error) {
	for n < len(p) && b.kind != none {
		_, m, err := b.Next(p[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Next takes bytes of p up to and with one run of the content, which it returns without its
// framing. n is how many bytes of p it took.
func (b *Body) Next(p []byte) (content []byte, n int, err error) {
	switch b.kind {
	case none:
		return nil, 0, nil
	case toEnd:
		return p, len(p), nil
	case length:
		n = int(min(int64(len(p)), b.left))
		b.Skip(int64(n))
		return p[:n], n, nil
	}
	for n < len(p) && b.kind != none {
		if b.state == data {
			m := int(min(int64(len(p)-n), b.left))
			if b.left -= int64(m); b.left == 0 {
				b.state = dataCR
			}
			return p[n : n+m], n + m, nil
		}
		if err := b.step(p[n]); err != nil {
			return nil, n, err
		}
		n++
	}
	return nil, n, nil
}

// step takes one byte of chunked framing.
func (b *Body) step(c byte) error {
	switch b.state {
	case size, extension, sizeLF:
		return b.chunkLine(c)
	case dataCR:
		return b.expect(c, '\r', dataLF)
	case dataLF:
		b.left, b.line = -1, 0
		return b.expect(c, '\n', size)
	}
	return b.trailer(c)
}

func (b *Body) expect(c, want byte, next state) error {
	if c != want {
		return malformed("a chunk that does not end where its size says")
	}
	b.state = next
	return nil
}

func (b *Body) chunkLine(c byte) error {
	if b.line++; b.line > MaxChunkLine {
		return over(400, "a chunk's size line (bytes)", MaxChunkLine)
	}
	switch {
	case b.state == sizeLF:
		return b.sized(c)
	case b.state == extension && c != '\r':
		if classes[c]&value == 0 {
			return malformed("a control character in a chunk extension")
		}
		return nil
	case classes[c]&hex != 0:
		return b.digit(c)
	case b.left < 0:
		return malformed("a chunk without a size")
	case c == '\r':
		b.state = sizeLF
		return nil
	case c == ';', b.padded && blank(c):
		b.state = extension
		return nil
	}
	return malformed("an invalid character in a chunk's size")
}

func (b *Body) digit(c byte) error {
	if b.left > 1<<52 || b.line > maxDigits {
		return malformed(fmt.Sprintf("a chunk's size of more than %d digits", maxDigits))
	}
	v := c - '0'
	if v > 9 {
		v = toLower(c) - 'a' + 10
	}
	b.left = max(b.left, 0)<<4 | int64(v)
	return nil
}

func (b *Body) sized(c byte) error {
	if c != '\n' {
		return malformed("a bare CR in a chunk's size line")
	}
	b.state = data
	if b.left == 0 {
		b.state, b.line = lineStart, 0
	}
	return nil
}

// trailer takes one byte of the trailer section (RFC 9112 section 7.1.2).
func (b *Body) trailer(c byte) error {
	if b.line++; b.line > MaxTrailers {
		return over(431, "the trailer section (bytes)", MaxTrailers)
	}
	if b.Keep {
		b.trailers = append(b.trailers, c)
	}
	switch b.state {
	case lineStart:
		b.nameAt = 0
		if c == '\r' {
			b.state = endLF
			return nil
		}
		b.state = name
		return b.trailerName(c)
	case name:
		return b.trailerName(c)
	case content:
		return b.trailerValue(c)
	case contentLF:
		return b.expectLF(c, lineStart)
	}
	if c == '\n' {
		b.kind = none
	}
	return b.expectLF(c, lineStart)
}

func (b *Body) expectLF(c byte, next state) error {
	if c != '\n' {
		return malformed("a bare CR in a trailer")
	}
	b.state = next
	return nil
}

func (b *Body) trailerName(c byte) error {
	if c == ':' && b.nameAt > 0 {
		b.state = content
		return b.allowed(string(b.name[:min(b.nameAt, nameSize)]))
	}
	if classes[c]&token == 0 {
		return malformed("an invalid trailer field")
	}
	if b.nameAt < nameSize {
		b.name[b.nameAt] = toLower(c)
	}
	b.nameAt++
	return nil
}

// allowed refuses what would frame, route or vouch for a message that is over (RFC 9110 section 6.5.1).
func (b *Body) allowed(name string) error {
	switch name {
	case "content-length", "transfer-encoding", "host", "connection", "upgrade", "te", "trailer", "keep-alive", "proxy-connection",
		"expect", "authorization", "proxy-authorization", "cookie", "forwarded", "x-request-id",
		"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto":
		return malformed("the trailer field " + name + ", which belongs in a head")
	}
	if b.Guard != "" && len(name) >= len(b.Guard) && name[:len(b.Guard)] == b.Guard {
		return malformed("the trailer field " + name)
	}
	return nil
}

func (b *Body) trailerValue(c byte) error {
	switch {
	case c == '\r':
		b.state = contentLF
	case classes[c]&value == 0:
		return malformed("a control character in a trailer")
	}
	return nil
}

// Trailers yields the names and values of the trailer fields of a body that is done, where Keep was set.
func (b *Body) Trailers(yield func(name, value []byte) bool) {
	for line := range bytes.Lines(b.trailers) {
		name, value, field := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte{':'})
		if field && !yield(name, bytes.Trim(value, " \t")) {
			return
		}
	}
}

// LastChunk ends a chunked body without trailers.
const LastChunk = "0\r\n\r\n"

// AppendChunk appends content as one chunk; nothing where content is empty, since an empty chunk
// would end the body.
func AppendChunk(dst, content []byte) []byte {
	if len(content) == 0 {
		return dst
	}
	dst = strconv.AppendInt(dst, int64(len(content)), 16)
	dst = append(dst, '\r', '\n')
	dst = append(dst, content...)
	return append(dst, '\r', '\n')
}
