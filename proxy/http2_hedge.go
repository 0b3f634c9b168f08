package proxy

import (
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h2"
)

// http2Rival is the other attempt of a hedged exchange in HTTP/2.
type http2Rival struct {
	rival
	up *h2.Stream
}

// mayHedge has the clock look at the attempt that has just begun, if its route is hedged.
func (s *http2Stream) mayHedge() {
	if s.route.hedge == 0 || !s.idempotent || s.tries > 1 || s.rival != nil {
		return
	}
	up := s.up
	time.AfterFunc(s.route.hedge, func() { s.hedgeLate(up) })
}

// hedgeLate sends the request to a second instance, if the first still has not answered on up, and all of the
// request is here.
func (s *http2Stream) hedgeLate(up *h2.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := &s.exchange
	if x.route == nil || x.route.hedge == 0 || !x.idempotent {
		return // another exchange has s by now
	}
	if s.phase != forwarding || s.up != up || s.begun || s.rival != nil || !s.ended || x.left() {
		return
	}
	r, ok := x.hedge()
	if !ok {
		return
	}
	s.rival = &http2Rival{rival: r, up: up}
	if s.openSecond() {
		return
	}
	y, l := x.copy(), x.link()
	go func() {
		o := l.connect(y)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.rival == nil || s.rival.up != up || s.up != nil {
			return // the first was answered, or failed, meanwhile
		}
		if x.dialed = true; o.reason == "" && s.openSecond() {
			return
		}
		s.swapRival()
		s.dropRival(nil, outcome{reason: fleet.ReasonConnectFailed, unseen: true})
	}()
}

// openSecond sends the request to x.place. While there is no connection, s.up is nil.
func (s *http2Stream) openSecond() bool {
	whole := len(s.replay) == 0
	s.up = s.link().open(nil, s.compose(), whole, s)
	if s.up == nil {
		return false
	}
	s.sent, s.ended = 0, whole
	if !whole {
		s.upload(nil, nil, false)
	}
	return true
}

// swapRival makes the rival the attempt that s describes.
func (s *http2Stream) swapRival() {
	s.swap(&s.rival.rival)
	s.up, s.rival.up = s.rival.up, s.up
	s.sent, s.ended = len(s.replay), true // of the first; the second's request is in its buffers as well
}

// dropRival ends the rival's attempt.
func (s *http2Stream) dropRival(b *h2.Batch, o outcome) {
	r := s.rival
	s.rival = nil
	s.withdraw(&r.rival, o)
	if r.up != nil {
		r.up.Release(b)
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
		if s.up == nil { // the second has no connection yet, and the first is over: that decides
			s.swapRival()
			s.fromEndpoint(e)
			return
		}
		s.dropRival(e.Batch, s.broken(e.Err))
	}
}

// outrun decides for the attempt that s describes, whose answer begins.
func (s *http2Stream) outrun(b *h2.Batch) {
	if s.rival != nil {
		s.dropRival(b, outcome{reason: fleet.ReasonCallerGone})
	}
}

// survives reports whether the rival goes on in the place of an attempt that failed.
func (s *http2Stream) survives(e h2.Event) bool {
	if s.rival == nil || s.begun || s.rival.up == nil {
		return false
	}
	s.swapRival()
	s.dropRival(e.Batch, s.broken(e.Err))
	return true
}
