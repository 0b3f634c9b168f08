package proxy

import (
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h2"
)

// http2Rival is the other attempt of a hedged exchange that came in HTTP/2: a stream, whose events tell of it, or a
// translation, whose goroutine does. It always goes on: only the attempt that counts may still want a connection.
type http2Rival struct {
	rival
	up    *h2.Stream
	plain *translation
}

// mayHedge has the clock look at the attempt that has just begun, if its route is hedged.
func (s *http2Stream) mayHedge() {
	if s.hedges() && s.rival == nil {
		s.lookAfter(s.route.hedge)
	}
}

// lookAfter hedges the attempt in a while, unless it is answered then. The exchange may be another one by then,
// which is hedged early.
func (s *http2Stream) lookAfter(d time.Duration) {
	up, plain := s.up, s.plain
	time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.up == up && s.plain == plain && s.asksInVain() {
			s.hedgeLate()
		}
	})
}

// asksInVain reports whether the only attempt still has no answer, and the whole request is here. If only its end
// is missing, upload looks again.
func (s *http2Stream) asksInVain() bool {
	decided := s.begun
	switch s.phase {
	case translating:
		decided = s.plain.decided
	case forwarding:
	default:
		return false // it is not to be looked at
	}
	if decided || s.rival != nil || !s.hedges() || s.left() {
		return false
	}
	s.overdue = s.phase == forwarding && !s.ended
	return !s.overdue
}

// hedgeLate sends the request to a second instance as well.
func (s *http2Stream) hedgeLate() {
	x := &s.exchange
	before, ok := x.hedge()
	if !ok {
		return
	}
	r := &http2Rival{before, s.up, s.plain}
	s.rival, s.up, s.plain, s.phase = r, nil, nil, forwarding
	l := x.link()
	if !l.speaksHTTP1(x.p.now()) && s.openSecond() {
		return
	}
	go s.connectSecond(r, x.copy(), l)
}

// openSecond sends the request to x.place in HTTP/2. While there is no connection, s.up is nil.
func (s *http2Stream) openSecond() bool {
	whole := len(s.replay) == 0
	s.up = s.link().open(s.source.Service, nil, s.compose(), whole, s)
	if s.up == nil {
		return false
	}
	s.sent, s.ended = 0, whole
	if !whole {
		s.upload(nil, nil, false)
	}
	return true
}

// connectSecond opens a connection for the second attempt, and sees it through where that is a translation.
func (s *http2Stream) connectSecond(r *http2Rival, y *exchange, l *http2Link) {
	u, o := y.connectEither(l)
	t := s.second(r, y, u, o)
	if t == nil {
		return
	}
	if o, carried := t.run(); !carried {
		s.goOn(o)
	}
}

// connectEither connects as the application speaks. Without an upstream and a reason there is a
// connection in HTTP/2.
func (x *exchange) connectEither(l *http2Link) (*upstream, outcome) {
	if !l.speaksHTTP1(x.p.now()) {
		if o := l.connect(x); o.reason != "" || !l.speaksHTTP1(x.p.now()) {
			return nil, o
		}
	}
	if x.obs.Protocol == fleet.GRPC {
		return nil, noHTTP2()
	}
	return x.connect()
}

// second begins the second attempt, which has its connection, or could not get one. It returns a translation that is
// to be run.
func (s *http2Stream) second(r *http2Rival, y *exchange, u *upstream, o outcome) *translation {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rival != r {
		if u != nil {
			u.pool.put(u)
		}
		return nil // the first was answered, or failed, meanwhile
	}
	s.dialed = y.dialed
	if u != nil {
		s.plain, s.phase = newTranslation(s, u, y), translating
		return s.plain
	}
	if o.reason == "" && s.openSecond() {
		return nil
	}
	if o.reason == "" {
		o = outcome{reason: fleet.ReasonConnectFailed, unseen: true}
	}
	s.swapRival()
	s.dropRival(nil, o)
	return nil
}

// swapRival makes the rival the attempt that s describes.
func (s *http2Stream) swapRival() {
	r := s.rival
	s.swap(&r.rival)
	s.up, r.up = r.up, s.up
	s.plain, r.plain = r.plain, s.plain
	s.sent, s.ended = len(s.replay), true // of the first; the second's request is in its buffers as well
	s.phase = forwarding
	if s.plain != nil {
		s.phase = translating
	}
}

// dropRival ends the rival's attempt.
func (s *http2Stream) dropRival(b *h2.Batch, o outcome) {
	r := s.rival
	s.rival = nil
	s.withdraw(&r.rival, o)
	if r.up != nil {
		r.up.Release(b)
	}
	if r.plain != nil {
		r.plain.lose()
	}
}

// fromRival takes an event of the rival's stream: its answer makes it the attempt that counts.
func (s *http2Stream) fromRival(e h2.Event) {
	switch e.Kind {
	case h2.Headers:
		if s.rival.up.Head().Status < 200 {
			return
		}
		s.swapRival()
		s.fromEndpoint(e)
	case h2.Closed:
		if s.up == nil && s.plain == nil { // the second has no connection yet, and the first is over: that decides
			s.swapRival()
			s.fromEndpoint(e)
			return
		}
		s.dropRival(e.Batch, brokenStream(e.Err, false, s.rival.place.peer()))
	}
}

// outrun decides for the attempt that s describes, whose answer begins.
func (s *http2Stream) outrun(b *h2.Batch) {
	if s.rival != nil {
		s.dropRival(b, outcome{reason: fleet.ReasonCallerGone})
	}
}

// survives reports whether the rival goes on in the place of an attempt that ended as o says.
func (s *http2Stream) survives(b *h2.Batch, o outcome) bool {
	if s.rival == nil || s.begun || s.rival.up == nil && s.rival.plain == nil {
		return false
	}
	s.swapRival()
	s.dropRival(b, o)
	return true
}

// decide settles which attempt goes on, after the one that t makes has an answer, or failed with err; false: not t's.
func (t *translation) decide(err error) bool {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.lost {
		return false // s may be another exchange's by now
	}
	t.x, t.decided = &s.exchange, true
	if s.rival == nil {
		return true
	}
	mine := s.plain == t
	connecting := s.up == nil && s.plain == nil
	if err == nil || connecting || s.left() || s.timeIsUp() {
		if !mine {
			s.swapRival()
		}
		s.outrun(nil)
		return true
	}
	o := t.failure(err)
	if mine {
		s.swapRival()
	}
	s.dropRival(nil, o)
	return false
}

// lose ends a translation that does not count; its goroutine notices.
func (t *translation) lose() {
	t.lost = true
	t.leave()
}

// leave ends a translation for whose answer nobody waits any more.
func (t *translation) leave() {
	t.gone.Store(true)
	t.u.interrupt()
}
