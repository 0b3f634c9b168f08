package fleet

import "encoding/hex"

// TraceID names a trace, as W3C Trace Context does (https://www.w3.org/TR/trace-context/, section 3.2.2.3). Zero: none.
type TraceID [16]byte

// SpanID names one span of a trace (section 3.2.2.4, where it is called parent-id). Zero: none.
type SpanID [8]byte

// String returns 32 lower-case hexadecimal digits.
func (t TraceID) String() string { return hex.EncodeToString(t[:]) }

// String returns 16 lower-case hexadecimal digits.
func (s SpanID) String() string { return hex.EncodeToString(s[:]) }

// MarshalText writes t as String does.
func (t TraceID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, t[:]), nil }

// MarshalText writes s as String does.
func (s SpanID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (t *TraceID) UnmarshalText(b []byte) error { return fromHex(t[:], b) }

// UnmarshalText reads 16 hexadecimal digits.
func (s *SpanID) UnmarshalText(b []byte) error { return fromHex(s[:], b) }

func fromHex(dst, text []byte) error {
	if len(text) != hex.EncodedLen(len(dst)) {
		return hex.ErrLength
	}
	_, err := hex.Decode(dst, text)
	return err
}
