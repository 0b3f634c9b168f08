package observe

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"

	"github.com/shoalrun/shoal/fleet"
)

// Trace is what a request says of the trace that it is part of: W3C Trace Context, version 00
// (https://www.w3.org/TR/trace-context/).
type Trace struct {
	ID      fleet.TraceID
	Parent  fleet.SpanID // the span of whoever sent the request; zero where the trace begins here
	Sampled bool
}

// TraceparentSize is the length in bytes of a traceparent as [AppendTraceparent] writes it.
const TraceparentSize = 55

// ParseTraceparent reads the value of a traceparent field (section 3.2). ok is false for one that is to be
// replaced by a new trace. A version above 00 is read by what it has in common with 00 (section 3.2.4).
func ParseTraceparent[T string | []byte](v T) (t Trace, ok bool) {
	if len(v) < TraceparentSize || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return Trace{}, false
	}
	var version, flags [1]byte
	if !decodeHex(version[:], v[:2]) || !decodeHex(t.ID[:], v[3:35]) || !decodeHex(t.Parent[:], v[36:52]) || !decodeHex(flags[:], v[53:55]) {
		return Trace{}, false
	}
	longer := len(v) > TraceparentSize
	if version[0] == 0xff || longer && (version[0] == 0 || v[TraceparentSize] != '-') {
		return Trace{}, false
	}
	if t.ID == (fleet.TraceID{}) || t.Parent == (fleet.SpanID{}) {
		return Trace{}, false
	}
	t.Sampled = flags[0]&1 != 0
	return t, true
}

// decodeHex reads lower-case digits only, as section 3.2.2 has them.
func decodeHex[T string | []byte](dst []byte, v T) bool {
	for i := range dst {
		high, low := digit(v[2*i]), digit(v[2*i+1])
		if high|low > 15 {
			return false
		}
		dst[i] = high<<4 | low
	}
	return true
}

func digit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

const hexDigits = "0123456789abcdef"

// AppendTraceparent appends the value of a traceparent field. No flag but sampled is set: those of later levels
// of the recommendation make readers of the first refuse the whole field.
func AppendTraceparent(dst []byte, trace fleet.TraceID, span fleet.SpanID, sampled bool) []byte {
	dst = append(dst, "00-"...)
	dst = appendHex(dst, trace[:])
	dst = append(dst, '-')
	dst = appendHex(dst, span[:])
	if sampled {
		return append(dst, "-01"...)
	}
	return append(dst, "-00"...)
}

func appendHex(dst, b []byte) []byte {
	for _, c := range b {
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}

// NewSpanID makes a span id. It names a span and guards nothing, so the runtime's generator serves.
func NewSpanID() (s fleet.SpanID) {
	binary.BigEndian.PutUint64(s[:], random())
	return s
}

// random is never 0: an id of zeros is none.
func random() uint64 {
	for {
		if n := rand.Uint64(); n != 0 {
			return n
		}
	}
}

// Sampler decides which of the traces that begin here are sampled. A nil one and the zero value take all. What comes
// with a traceparent keeps the decision that it came with. It is safe for concurrent use.
type Sampler struct {
	out atomic.Uint64 // of 1<<63 traces
}

// NewSampler takes a share of the traces, from 0 to 1. As OpenTelemetry's TraceIdRatioBased does, it decides by the
// trace id alone, so that all who use the same share decide alike.
func NewSampler(share float64) *Sampler {
	s := &Sampler{}
	s.Set(share)
	return s
}

// Set changes the share, for the traces that begin from now on.
func (s *Sampler) Set(share float64) { s.out.Store(1<<63 - uint64(min(max(share, 0), 1)*(1<<63))) }

// Begin begins a trace.
func (s *Sampler) Begin() (t Trace) {
	binary.BigEndian.PutUint64(t.ID[:8], random())
	low := random()
	binary.BigEndian.PutUint64(t.ID[8:], low)
	t.Sampled = s == nil || low>>1 < 1<<63-s.out.Load()
	return t
}

// maxMembers of a tracestate (section 3.3.1.1).
const maxMembers = 32

// CheckTracestate checks the value of a tracestate field (section 3.3.1, with the wider keys of Level 2). A request may have
// several, which count as one list: members is how many came before, and after this field. ok is false for a list
// that is to be dropped whole.
func CheckTracestate[T string | []byte](v T, members int) (total int, ok bool) {
	for start, i := 0, 0; i <= len(v); i++ {
		if i < len(v) && v[i] != ',' {
			continue
		}
		from, to := trimBlank(v, start, i)
		start = i + 1
		if from == to {
			continue // an empty member is allowed
		}
		if members++; members > maxMembers || !validMember(v[from:to]) {
			return members, false
		}
	}
	return members, true
}

func trimBlank[T string | []byte](v T, from, to int) (int, int) {
	for from < to && (v[from] == ' ' || v[from] == '\t') {
		from++
	}
	for from < to && (v[to-1] == ' ' || v[to-1] == '\t') {
		to--
	}
	return from, to
}

// maxKey and maxValue are the limits of a member's parts, in bytes (sections 3.3.1.3.1 and 3.3.1.3.2).
const maxKey, maxValue = 256, 256

func validMember[T string | []byte](v T) bool {
	n := 0
	for n < len(v) && keyByte(v[n], n == 0) {
		n++
	}
	if n == 0 || n > maxKey || n == len(v) || v[n] != '=' {
		return false
	}
	value := v[n+1:]
	if len(value) == 0 || len(value) > maxValue {
		return false
	}
	for i := range len(value) {
		if c := value[i]; c < 0x20 || c > 0x7e || c == '=' || c == ',' {
			return false
		}
	}
	return true
}

func keyByte(c byte, first bool) bool {
	if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
		return true
	}
	return !first && (c == '_' || c == '-' || c == '*' || c == '/' || c == '@')
}
