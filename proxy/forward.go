package proxy

import (
	"bytes"
	"errors"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h1"
)

// bodyTimeout is the size up to which a deadline runs to the end of a response: what is larger, or of
// unknown length, is a stream (FOUNDATIONS, calls).
const bodyTimeout = 64 << 10

// connect takes a kept-alive connection to x.place, or opens one.
func (x *exchange) connect() (*upstream, outcome) {
	pl := x.place
	pool := pl.pool(x.route.port.Number, x.source.Service)
	if !x.fresh {
		if u := pool.get(); u != nil {
			u.sent = 0
			return u, outcome{}
		}
	}
	ctx, cancel := x.context(dialTimeout)
	defer cancel()
	c, err := pl.dial(ctx, x.route.port.Number, x.source.Service)
	if err != nil {
		pl.dialFailed()
		return nil, outcome{reason: fleet.ReasonConnectFailed, unseen: true, detail: "cannot be reached: " + err.Error()}
	}
	pl.dialWorked()
	x.dialed = true
	return x.p.newUpstream(c, pool), outcome{}
}

// forward takes the request to x.place and the answer back.
func (s *session) forward(x *exchange) outcome {
	if x.route.port.Protocol == fleet.GRPC {
		f := wantsHTTP2(x.route)
		return outcome{reason: f.reason, final: f}
	}
	if s.req.Form == h1.Authority {
		return s.forwardConnect(x)
	}
	if x.place.peer() && s.upgradesPeer() {
		return s.forwardUpgrade(x)
	}
	if x.newer() && s.upgradesPeer() {
		return s.extendUpgrade(x)
	}
	if s.hedgeable(x) {
		return s.forwardHedged(x)
	}
	if x.throughHTTP2() {
		return s.forwardPeer(x)
	}
	u, o := x.connect()
	if u == nil {
		return o
	}
	s.waiting.Store(u)
	b := getBuffer()
	o = s.roundTrip(x, u, b)
	putBuffer(b)
	return o
}

// throughHTTP2 reports whether an HTTP/1.1 request goes to x.place as a stream of HTTP/2: to another node, or to
// an application that speaks nothing else.
func (x *exchange) throughHTTP2() bool {
	return x.place.peer() || x.newer()
}

// newer reports whether the application at x.place is known to speak HTTP/2 only.
func (x *exchange) newer() bool { return x.place.newer.Load() == uint32(x.route.port.Number) }

// roundTrip sends the request and, once the first bytes of the answer are there, relays it. From here
// on u is either given back or closed by whoever ends the exchange.
func (s *session) roundTrip(x *exchange, u *upstream, b *buffer) outcome {
	n, err := s.send(x, u, b)
	b.r, b.w = 0, n
	if err == nil {
		err = s.readAnswer(x, u, b)
	}
	if err != nil {
		return s.failed(x, u, b, err)
	}
	return s.relay(x, u, b)
}

// send writes the request and returns the first bytes of the answer. Head and body leave together
// where they fit; what of the body is still to come is pumped beside the answer.
func (s *session) send(x *exchange, u *upstream, b *buffer) (int, error) {
	if x.left() {
		return 0, errGone // before waiting was set, nobody could interrupt
	}
	out := s.compose(b.b[:0], x)
	first := s.first
	if s.pump != nil {
		first = s.pump.replay
	}
	if len(out)+len(first) > len(b.b) {
		if err := u.write(x, out); err != nil {
			return 0, err
		}
		out = out[:0]
	}
	if s.body.Done() || s.pump != nil && s.pump.body.Done() {
		if len(out) == 0 {
			return u.roundTrip(x, first, b.b)
		}
		return u.roundTrip(x, append(out, first...), b.b)
	}
	if err := u.write(x, append(out, first...)); err != nil {
		return 0, err
	}
	s.startPump(x, u)
	return u.read(x, b.b, x.deadline)
}

// readAnswer reads until the head of a final response is in b, parsed. Interim responses are passed on.
func (s *session) readAnswer(x *exchange, u *upstream, b *buffer) error {
	limits := s.p.limits()
	for scanned := 0; ; {
		n, err := h1.End(b.bytes(), scanned, limits)
		if err != nil {
			return err
		}
		if n > 0 {
			if err := s.res.Parse(b.bytes()[:n], limits); err != nil {
				return err
			}
			if s.res.Status >= 200 || s.res.Status == 101 {
				return s.acceptable()
			}
			if err := x.interim(); err != nil {
				return err
			}
			s.interim(b)
			b.r += n
			scanned = 0
			continue
		}
		scanned = len(b.bytes())
		n, err = u.read(x, b.room(s.p.cfg.MaxHead+bufferSize), x.deadline)
		b.w += n
		if err != nil {
			return err
		}
	}
}

// acceptable says why a final head is no answer to the request, or nil.
func (s *session) acceptable() error {
	switch {
	case s.res.Status == 101 && !s.req.Upgrade:
		return &h1.Error{Text: "an upgrade that nobody asked for"}
	case s.res.Chunked && s.req.Minor == 0 && s.res.Status >= 200 && s.res.Status != 204 && s.res.Status != 304:
		return &h1.Error{Text: "a chunked answer to HTTP/1.0"}
	}
	return nil
}

// interim passes 100 (Continue), 103 and their like on to a caller that knows them.
func (s *session) interim(b *buffer) {
	if s.req.Minor == 0 {
		return
	}
	spare := getBuffer()
	defer putBuffer(spare)
	out := append(spare.b[:0], s.res.Line.Of(b.bytes())...)
	out = append(out, '\r', '\n')
	out = s.res.AppendFields(out, b.bytes())
	s.x.obs.BytesOut += int64(len(out) + 2)
	_ = s.write(append(out, '\r', '\n')) // a caller that is gone is noticed with its answer
}

// failed ends an attempt that brought no answer.
func (s *session) failed(x *exchange, u *upstream, b *buffer, err error) outcome {
	o := outcome{reason: fleet.ReasonUpstreamReset, stale: u.used, detail: "closed the connection without an answer"}
	s.waiting.Store(nil)
	slow := s.pump != nil && s.pump.awaits.Load()
	if s.pump != nil {
		s.stopPump(x, u)
	}
	o.unseen = b.w == 0 && u.unseen()
	abort(u.Conn)
	u.close()
	var bad *h1.Error
	switch {
	case s.pump != nil && s.pump.bad != nil:
		o.final = rejection(s.pump.bad)
		o.reason = o.final.reason
		s.keep = false
	case errors.Is(err, errTimeout) && slow:
		return x.slowBody()
	case errors.Is(err, errGone):
		o.reason = fleet.ReasonCallerGone
	case errors.Is(err, errTimeout):
		o.reason = fleet.ReasonTimeout
	case errors.As(err, &bad):
		o.reason, o.detail = fleet.ReasonUpstreamMalformed, "answered with "+bad.Text
	case errors.Is(err, errUnasked):
		o.detail = unasked
	case b.w > 0:
		o.detail = "closed the connection within the head of its answer"
	}
	return x.taught(o, u, b)
}

// taught is the outcome of an attempt in HTTP/1.1 on u that brought b and no answer, after what is to be learned
// of it.
func (x *exchange) taught(o outcome, u *upstream, b *buffer) outcome {
	if !u.used && (o.reason == fleet.ReasonUpstreamReset || o.reason == fleet.ReasonUpstreamMalformed) {
		o.unseen = x.learnNewer(b) || o.unseen
	}
	return o
}

// learnNewer finds out whether an application that gave no answer to HTTP/1.1 speaks HTTP/2 only, so that
// its next requests go in that. It reports whether the application has said so itself, by settings in
// place of an answer: then it has not taken the request for one. One that just closes the connection is
// asked at most once in plainAWhile, also after a request that may not be tried again: the next one profits.
func (x *exchange) learnNewer(b *buffer) (unseen bool) {
	settings := beginsWithSettings(b.bytes())
	l := x.link()
	switch {
	case settings:
		l.plain.Store(0)
	case b.w > 0:
		return false
	}
	if o := l.connect(x); o.reason == "" && l.available() {
		x.place.newer.Store(uint32(x.route.port.Number))
		return settings
	}
	return false
}

// beginsWithSettings: a SETTINGS frame on stream 0 is what an HTTP/2 server says first (RFC 9113 section 3.4).
func beginsWithSettings(b []byte) bool {
	return len(b) >= 9 && b[0] == 0 && b[3] == 4 && bytes.Equal(b[4:9], make([]byte, 5))
}
