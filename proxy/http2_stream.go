package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h2"
)

// http2Stream is an exchange that came as an HTTP/2 stream: the walk of exchange.call, told by events.
// While nothing has to be waited for, every stage runs on the goroutine that reads the connection
// which brought the event; a goroutine of its own (walk) takes over where an endpoint has to be waited
// for or connected to, and where the application speaks HTTP/1.1.
type http2Stream struct {
	mu sync.Mutex // guards all below; but the exchange is the walking goroutine's in phase waiting
	exchange
	session *http2Session
	down    *h2.Stream // from and to the caller
	up      *h2.Stream // to and from the endpoint
	phase   phase
	away    atomic.Bool // what exchange.gone points to
	deaf    atomic.Bool // what exchange.stalled points to

	reply     h2.Head // see told
	back      []h2.Field
	request   h2.Head
	fields    []h2.Field
	authority string
	timeout   string    // grpc-timeout, as it came
	clock     [20]byte  // what is left of the deadline, in digits
	http1     bool      // the caller, behind a peer, speaks HTTP/1.1
	latest    time.Time // when the caller behind a peer stops waiting; zero: as the route says
	grpc      bool

	replay  []byte // what came of the body, for as long as the request may have to be sent again
	sent    int    // bytes of replay that this attempt has sent
	ended   bool   // the request's end was sent with the last of replay
	begun   bool   // an answer's head went to the caller
	answers bool   // the answer's end came, and only the caller's window keeps it

	timer   *time.Timer
	fires   time.Time // zero: the timer is not running
	until   time.Time // when the exchange ends for the clock; zero: never
	silence bool      // until moves on with every piece of the answer
	lapse   time.Time // when the silence within the request's body is too long; zero: nothing of it is awaited

	bytesIn int64
	event   sync.Cond    // for the goroutines that translate
	expired bool         // the clock ended the exchange while they waited for an event
	plain   *translation // the attempt in HTTP/1.1 that they make
	rival   *http2Rival  // nil: the exchange has one attempt at a time
	overdue bool         // it is to be hedged once the whole request is here
}

// phase says who moves an http2Stream on.
type phase uint8

const (
	waiting     phase = iota // the goroutine that took it, or walk
	forwarding               // events
	translating              // walk, for which events are noted
	done                     // nobody: it may be used again
)

// http2Streams are used again and again, with their storage and their timers. An event on its way to a
// stream's former user finds that its stream is not the new user's.
var http2Streams = sync.Pool{New: func() any {
	s := &http2Stream{}
	s.event.L = &s.mu
	return s
}}

// maxReplayKept is the largest replay buffer that is used again.
const maxReplayKept = 16 << 10

func (s *http2Stream) reset() {
	clear(s.fields)
	s.fields, s.replay = s.fields[:0], s.replay[:0]
	clear(s.back)
	s.reply, s.back = h2.Head{}, s.back[:0]
	if cap(s.replay) > maxReplayKept {
		s.replay = nil
	}
	s.session, s.down, s.up, s.plain, s.rival = nil, nil, nil, nil, nil
	s.request, s.authority, s.timeout, s.grpc = h2.Head{}, "", "", false
	s.sent, s.ended, s.begun, s.answers, s.silence, s.expired = 0, false, false, false, false, false
	s.bytesIn = 0
	s.until, s.lapse, s.latest, s.http1 = time.Time{}, time.Time{}, time.Time{}, false
	s.away.Store(false)
	s.deaf.Store(false)
}

// start does the stages up to the first attempt; the attempt, too, where a connection is open.
func (s *http2Stream) start(b *h2.Batch) {
	x := &s.exchange
	matched := x.match(s)
	s.bound()
	if !matched || !x.authorize() || !x.terminable() {
		s.end(b)
		return
	}
	if x.route.faults != nil {
		go s.disturbed() // may take its time
		return
	}
	if !x.limit() {
		s.end(b)
		return
	}
	entered := x.enter(x.choose())
	if entered && !s.older() && s.open(b) {
		return
	}
	s.walkOn(entered)
}

// disturbed is exchange.call from disturb on.
func (s *http2Stream) disturbed() {
	if s.disturb() && s.limit() {
		s.walk(false)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(nil)
}

// walk is exchange.call from balance on, for an exchange that has to wait: for a place, or, once it has entered
// one, for a connection.
func (s *http2Stream) walk(entered bool) {
	for ; entered || s.balance(); entered = false {
		o, going := s.attemptOnce()
		if going {
			return
		}
		if !s.retry(o) {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(nil)
}

// goOn is walk from the end of an attempt on.
func (s *http2Stream) goOn(o outcome) {
	if s.retry(o) {
		s.walk(false)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(nil)
}

// attemptOnce sends the request to x.place. going says that others take it from there: events, or the goroutine
// of an attempt that was faster.
func (s *http2Stream) attemptOnce() (o outcome, going bool) {
	x := &s.exchange
	l := x.linkOf(s.down.Head().Length)
	for range 3 {
		if x.left() {
			return outcome{reason: fleet.ReasonCallerGone}, false
		}
		if s.older() || l.speaksHTTP1(x.p.now()) {
			if s.grpc {
				return noHTTP2(), false
			}
			return s.translate()
		}
		if s.openLocking() {
			return outcome{}, true
		}
		if o := l.connect(x); o.reason != "" {
			return o, false
		}
	}
	return outcome{reason: fleet.ReasonConnectFailed, unseen: true, detail: "takes no further HTTP/2 stream"}, false
}

// older reports whether the application is spoken to in HTTP/1.1: as its caller behind a peer speaks, which is what it
// knows best, unless it is known to speak HTTP/2 only; and a builtin, whose HTTP/2 is gRPC's alone.
func (s *http2Stream) older() bool {
	return s.http1 && !s.newer() || s.place.builtin != nil && !s.grpc
}

func (s *http2Stream) openLocking() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open(nil)
}

// open sends the request's head, and what came of its body, to x.place.
func (s *http2Stream) open(b *h2.Batch) bool {
	x := &s.exchange
	if x.left() {
		return false
	}
	whole := s.down.Ended() && len(s.replay) == 0 && s.down.Trailers() == nil
	s.up = x.linkOf(s.down.Head().Length).open(x.source.Service, b, s.compose(), whole, s)
	if s.up == nil {
		return false
	}
	s.phase, s.sent, s.ended, s.overdue = forwarding, 0, whole, false
	if s.lapse = (time.Time{}); !whole {
		s.bodyMoved()
	}
	s.arm(s.due())
	s.mayHedge()
	if !whole && (s.down.Buffered() > 0 || s.down.Ended() || len(s.replay) > 0) {
		s.upload(b, nil, false)
	}
	return true
}

// Receive takes an event of either side.
func (s *http2Stream) Receive(st *h2.Stream, e h2.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case st == nil || s.phase == done:
	case st == s.down:
		s.fromCaller(e)
	case st == s.up:
		s.fromEndpoint(e)
	case s.rival != nil && st == s.rival.up:
		s.fromRival(e)
	}
}

func (s *http2Stream) fromCaller(e h2.Event) {
	s.bytesIn += int64(len(e.Data))
	if e.Kind == h2.Closed {
		s.callerLeft(e)
		return
	}
	if s.phase != forwarding {
		s.down.Keep(e.Data, e.End)
		s.heard()
		s.event.Broadcast()
		return
	}
	if e.Kind != h2.Writable {
		s.upload(e.Batch, e.Data, e.End)
		s.heard()
		return
	}
	if s.silence {
		s.until = time.Now().Add(s.route.idle)
	}
	if s.up != nil && s.up.Forward(e.Batch, s.down, nil, false) {
		s.settle(e.Batch, outcome{})
	}
}

func (s *http2Stream) callerLeft(e h2.Event) {
	s.deaf.Store(e.Err.Stalled)
	s.away.Store(true)
	s.event.Broadcast()
	if s.plain != nil {
		s.plain.leave()
	}
	if s.phase == forwarding {
		s.settle(e.Batch, outcome{reason: fleet.ReasonCallerGone, begun: true})
	}
}

// settle ends an attempt.
func (s *http2Stream) settle(b *h2.Batch, o outcome) {
	s.outrun(b)
	if s.up != nil { // a second attempt may still want a connection
		s.up.Release(b)
	}
	s.up, s.phase, s.until = nil, waiting, time.Time{}
	if s.retry(o) {
		s.walkOn(false)
		return
	}
	s.end(b)
}

// end answers with a refusal where there is one, and records the exchange. The caller holds s.mu and
// does nothing with s after it but unlock.
func (s *http2Stream) end(b *h2.Batch) {
	if s.refusal != nil {
		s.refuse(b)
	}
	s.obs.BytesIn = s.bytesIn
	s.observe()
	s.mirror(s)
	s.down.Release(b)
	s.phase = done
	s.reset()
	http2Streams.Put(s)
}
