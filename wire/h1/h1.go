// Package h1 is the codec of HTTP/1.1 (RFC 9112): bytes in, messages out.
//
// It stands under the walk of a call and knows nothing of meshes: [Request] and [Response] describe
// a head as byte ranges of the buffer that it was read into, [Body] finds where a body ends without
// touching its bytes, so that a proxy forwards what it read. Nothing is allocated once the slices
// of a message have grown to their use.
//
// It is strict where leniency lets one message pass for two (request smuggling, RFC 9112 section
// 11.2): a line ends in CRLF, a message has one framing, a field name is followed by its colon.
//
// No type here is safe for concurrent use. Errors are of type [*Error].
package h1

import "fmt"

// Limits of one message. Zero means the default that the field names.
type Limits struct {
	Head   int // bytes of a head, first line included; 0: DefaultHead
	Fields int // fields of a head; 0: DefaultFields
}

// Defaults, and the limits that are not for a caller to choose.
const (
	DefaultHead   = 64 << 10
	DefaultFields = 256
	MaxMethod     = 64
	MaxChunkLine  = 256     // a chunk's size and extensions
	MaxTrailers   = 8 << 10 // the whole trailer section
)

func (l Limits) head() int {
	if l.Head > 0 {
		return l.Head
	}
	return DefaultHead
}

func (l Limits) fields() int {
	if l.Fields > 0 {
		return l.Fields
	}
	return DefaultFields
}

// Error is why a message was rejected. Status is what a server answers for it: 400, 431, 501 or 505; 0
// where it is of another protocol, whose speaker an answer would only confuse. TooLarge tells a limit, which Text names, from a violation of the grammar;
// Limit is its field in [Limits], in lower case, or empty where it is fixed.
type Error struct {
	Status   int
	Text     string
	TooLarge bool
	Limit    string
}

func (e *Error) Error() string { return "h1: " + e.Text }

func malformed(text string) error { return &Error{Status: 400, Text: text} }

func over(status int, what string, n int) error {
	return &Error{Status: status, Text: fmt.Sprintf("%s is over its limit of %d", what, n), TooLarge: true}
}

// overLimit is over for a limit that is set.
func overLimit(what, limit string, n int) error {
	return &Error{Status: 431, Text: fmt.Sprintf("%s is over its limit of %d", what, n), TooLarge: true, Limit: limit}
}

// Span is a range of the buffer that a head was parsed from.
type Span struct{ Start, End int32 }

// Of returns the bytes of s in b, the buffer that was parsed.
func (s Span) Of(b []byte) []byte { return b[s.Start:s.End] }

// Len returns the number of bytes of s.
func (s Span) Len() int { return int(s.End - s.Start) }

// Kind tells the fields that frame a message or end at this hop from all others.
type Kind uint8

// The kinds of [Field].
const (
	Other Kind = iota
	Host
	ContentLength
	TransferEncoding
	Connection
	KeepAlive
	ProxyConnection
	TE
	Upgrade
	Expect
)

// Field is one field line.
type Field struct {
	Name, Value Span // Value without the white space around it
	End         int32
	Kind        Kind
	// Drop is set for fields that must not be forwarded (RFC 9110 section 7.6.1); whoever forwards
	// may set it on more.
	Drop bool
}

// Is reports whether the field's name, in b, is lower, which is in lower case.
func (f *Field) Is(b []byte, lower string) bool { return EqualFold(f.Name.Of(b), lower) }

// EqualFold reports whether b is lower, which is in lower case, without regard to ASCII case.
func EqualFold(b []byte, lower string) bool {
	return len(b) == len(lower) && HasPrefixFold(b, lower)
}

// HasPrefixFold reports whether b begins with lower, which is in lower case.
func HasPrefixFold(b []byte, lower string) bool {
	if len(b) < len(lower) {
		return false
	}
	for i := range len(lower) {
		if toLower(b[i]) != lower[i] {
			return false
		}
	}
	return true
}

func toLower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c | 0x20
	}
	return c
}
