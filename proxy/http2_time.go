package proxy

import (
	"strconv"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// arm has the exchange end at until, unless it ends before. A timer that fires early looks again, so
// that an exchange costs none while its predecessors took less time.
func (s *http2Stream) arm(until time.Time) {
	s.until = until
	if until.IsZero() || !s.fires.IsZero() && !until.Before(s.fires) {
		return
	}
	s.fires = until
	if s.timer == nil {
		s.timer = time.AfterFunc(time.Until(until), s.fire)
		return
	}
	s.timer.Reset(time.Until(until))
}

func (s *http2Stream) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fires = time.Time{}
	if s.timeIsUp() && s.untaken() {
		s.bodyMoved() // once it is taken, the caller has its time
		s.until = s.due()
	}
	if !s.timeIsUp() {
		s.arm(s.until)
		return
	}
	switch s.phase {
	case forwarding:
		s.settle(nil, s.late())
	case translating:
		s.expired = true
		s.event.Broadcast()
	}
}

// timeIsUp reports whether the clock is to end the attempt, even if its timer has not run yet.
func (s *http2Stream) timeIsUp() bool { return !s.until.IsZero() && !time.Now().Before(s.until) }

// due is when an attempt without an answer ends: when the call's time is over, or the silence within its body.
func (s *http2Stream) due() time.Time {
	if s.deadline.IsZero() || !s.lapse.IsZero() && s.lapse.Before(s.deadline) {
		return s.lapse
	}
	return s.deadline
}

// bodyMoved begins to count the silence within the request's body, or ends that. A gRPC stream may be silent, and
// once there is an answer that is looked at.
func (s *http2Stream) bodyMoved() {
	s.lapse = time.Time{}
	if !s.grpc && !s.begun && !s.down.Ended() {
		s.lapse = time.Now().Add(s.route.idle)
	}
}

// heard notes that more of the request's body has come.
func (s *http2Stream) heard() {
	if s.lapse.IsZero() {
		return
	}
	s.bodyMoved()
	if s.phase == forwarding {
		s.until = s.due()
	}
}

// untaken reports whether the clock ran out within the request's body, but all that came of that has not been
// taken: not the caller is silent.
func (s *http2Stream) untaken() bool {
	return s.phase == forwarding && s.untimely() && !s.awaitsBody()
}

// untimely: it was not the call's own time that is over.
func (s *http2Stream) untimely() bool {
	return !s.lapse.IsZero() && (s.deadline.IsZero() || time.Now().Before(s.deadline))
}

// late is the outcome of an attempt that the clock ended.
func (s *http2Stream) late() outcome {
	if s.awaitsBody() && s.untimely() {
		return s.silentBody()
	}
	if s.awaitsBody() {
		return s.slowBody()
	}
	if s.begun && s.up != nil && s.up.Buffered() > 0 {
		s.deaf.Store(true) // what came is here, and the caller takes it too slowly
		return outcome{reason: fleet.ReasonCallerGone, begun: true}
	}
	o := outcome{reason: fleet.ReasonTimeout, begun: s.begun}
	if s.silence {
		o.final = timedOut(s.route.callee, s.route.idle)
	}
	return o
}

// awaitsBody reports whether the request's body is what is missing: all that came of it was sent. A gRPC
// client's deadline is its own, and so is what it makes of it.
func (s *http2Stream) awaitsBody() bool {
	return !s.grpc && !s.begun && !s.down.Ended() && s.down.Buffered() == 0 && s.sent == len(s.replay)
}

// gRPC's units of time (gRPC over HTTP2, "Requests").
func grpcUnit(c byte) time.Duration {
	switch c {
	case 'H':
		return time.Hour
	case 'M':
		return time.Minute
	case 'S':
		return time.Second
	case 'm':
		return time.Millisecond
	case 'u':
		return time.Microsecond
	case 'n':
		return time.Nanosecond
	}
	return 0
}

// parseGRPCTimeout reads a grpc-timeout: up to eight digits and a unit.
func parseGRPCTimeout(v string) (time.Duration, bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	unit := grpcUnit(v[len(v)-1])
	if err != nil || unit == 0 {
		return 0, false
	}
	if n > uint64(1<<62/unit) {
		return 1 << 62, true
	}
	return time.Duration(n) * unit, true
}

// bound sets what gRPC says of deadlines: grpc-timeout and a declared timeout hold, the default of
// http does not, since nothing on the wire tells a unary call from a stream (FOUNDATIONS, calls).
func (s *http2Stream) bound() {
	x := &s.exchange
	if !s.latest.IsZero() {
		x.endBy(s.latest)
	}
	if !s.grpc {
		return
	}
	x.obs.Protocol = fleet.GRPC
	if x.route.port.Protocol == fleet.HTTP && !x.route.declared {
		x.deadline = time.Time{}
	}
	d, ok := parseGRPCTimeout(s.timeout)
	if !ok {
		return
	}
	x.endBy(x.obs.Time.Add(d))
}
