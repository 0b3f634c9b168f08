package proxy

import (
	"strconv"
	"time"

	"github.com/shoalrun/shoal/wire/h2"
)

// timeoutField tells an application for how many milliseconds its caller still waits. An application that
// passes it on with its own calls (what is left of it; or the whole, which errs on the long side) has them
// end when nobody waits any more, as grpc-timeout does for gRPC. Nothing else can know which of an
// application's calls belong to which of its requests.
const timeoutField = "shoal-timeout-ms"

// asked takes a timeout that a caller passed on. It can only shorten what the route allows; what is no
// number says nothing.
func (x *exchange) asked(ms string) {
	if n, err := strconv.ParseUint(ms, 10, 40); err == nil && n > 0 {
		x.asks = time.Duration(n) * time.Millisecond
	}
}

// endBy makes the exchange end at a time, unless it ends before.
func (x *exchange) endBy(at time.Time) {
	if x.deadline.IsZero() || at.Before(x.deadline) {
		x.deadline = at
	}
}

// prompt reports whether nothing has taken time so far.
func (x *exchange) prompt() bool {
	return x.tries <= 1 && x.waited == 0 && x.obs.Queued == 0 && x.obs.Fault == ""
}

// left to x, in milliseconds, rounded up: an application that keeps time ends no sooner than this side.
func (x *exchange) leftMillis() int64 {
	left := x.deadline.Sub(x.obs.Time)
	if !x.prompt() {
		left = time.Until(x.deadline)
	}
	return max(1, units(left, time.Millisecond))
}

// tells reports whether the application is told how long its caller waits.
func (x *exchange) tells() bool {
	return !x.deadline.IsZero() && x.route.service != nil && !x.place.peer()
}

func (x *exchange) appendTimeout(dst []byte) []byte {
	if !x.tells() {
		return dst
	}
	dst = append(dst, "Shoal-Timeout-Ms: "...)
	return append(strconv.AppendInt(dst, x.leftMillis(), 10), '\r', '\n')
}

// timeoutField is the same for HTTP/2. The value of a call that nothing held up is the route's own, which
// header compression may keep.
func (s *http2Stream) timeoutField() h2.Field {
	f := h2.Field{Name: timeoutField, Value: s.route.timeoutText}
	if !s.prompt() || !s.deadline.Equal(s.obs.Time.Add(s.route.timeout)) {
		f.Value, f.Sensitive = view(strconv.AppendInt(s.clock[:0], s.leftMillis(), 10)), true
	}
	return f
}

// grpcTimeout is what the application is told, or the next node: what is left of the deadline now, so that
// it shrinks at each hop, rounded up.
func (s *http2Stream) grpcTimeout() string {
	if !s.grpc || s.deadline.IsZero() {
		return s.timeout
	}
	left := max(time.Until(s.deadline), time.Microsecond)
	n, unit := units(left, time.Microsecond), byte('u')
	if left >= 90*time.Second {
		n, unit = min(units(left, time.Millisecond), 99_999_999), 'm'
	}
	return view(append(strconv.AppendInt(s.clock[:0], n, 10), unit))
}

// units is how many units hold d.
func units(d, unit time.Duration) int64 { return int64((d + unit - 1) / unit) }
