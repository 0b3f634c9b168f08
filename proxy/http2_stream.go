package proxy

import (
	"fmt"
	"strconv"
	"strings"
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

	request   h2.Head
	fields    []h2.Field
	authority string
	timeout   string // grpc-timeout, as it came
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

	bytesIn int64
	event   sync.Cond // for the goroutines that translate
	expired bool      // the clock ended the exchange while they waited for an event
	plain   *upstream // the HTTP/1.1 connection that they use
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
	if cap(s.replay) > maxReplayKept {
		s.replay = nil
	}
	s.session, s.down, s.up, s.plain = nil, nil, nil, nil
	s.request, s.authority, s.timeout, s.grpc = h2.Head{}, "", "", false
	s.sent, s.ended, s.begun, s.answers, s.silence, s.expired = 0, false, false, false, false, false
	s.bytesIn = 0
	s.until = time.Time{}
	s.away.Store(false)
}

// start does the stages up to the first attempt; the attempt, too, where a connection is open.
func (s *http2Stream) start(b *h2.Batch) {
	x := &s.exchange
	x.match()
	s.bound()
	if !x.authorize() || !x.terminable() || !x.limit() {
		s.end(b)
		return
	}
	if pl := x.choose(); pl != nil && pl.link(x.route.port.Number, x.source.Service).available() && x.enter(pl) {
		if s.open(b) {
			return
		}
		x.place.leave() // somebody else took the last stream
		x.tries--
	}
	go s.walk()
}

// walk is exchange.call from balance on, for an exchange that has to wait.
func (s *http2Stream) walk() {
	for s.balance() {
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

// attemptOnce sends the request to x.place. going says that events take it from there.
func (s *http2Stream) attemptOnce() (o outcome, going bool) {
	x := &s.exchange
	l := x.place.link(x.route.port.Number, x.source.Service)
	for range 3 {
		if x.left() {
			return outcome{reason: fleet.ReasonCallerGone}, false
		}
		if l.speaksHTTP1(x.p.now()) {
			if s.grpc {
				return noHTTP2(), false
			}
			return s.translate(), false
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
	s.up = x.place.link(x.route.port.Number, x.source.Service).open(b, s.compose(), whole, s)
	if s.up == nil {
		return false
	}
	s.phase, s.sent, s.ended = forwarding, 0, whole
	s.arm(x.deadline)
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
		s.event.Broadcast()
		return
	}
	if e.Kind != h2.Writable {
		s.upload(e.Batch, e.Data, e.End)
		return
	}
	if s.up.Forward(e.Batch, s.down, nil, false) {
		s.settle(e.Batch, outcome{})
	}
}

func (s *http2Stream) callerLeft(e h2.Event) {
	s.away.Store(true)
	s.event.Broadcast()
	if s.plain != nil {
		s.plain.interrupt()
	}
	if s.phase == forwarding {
		s.settle(e.Batch, outcome{reason: fleet.ReasonCallerGone, begun: true})
	}
}

// upload moves the request's body on. Until an answer comes it is kept, up to Config.MaxReplay, so that
// it can be sent again.
func (s *http2Stream) upload(b *h2.Batch, data []byte, end bool) {
	if s.ended {
		return
	}
	if !s.replayable && s.sent == len(s.replay) {
		s.down.Forward(b, s.up, data, end)
		return
	}
	s.down.Keep(data, end)
	if s.replayable {
		s.absorb(b)
	}
	whole := s.replayable && s.down.Ended() && s.down.Trailers() == nil
	if s.sent < len(s.replay) || whole {
		n, err := s.up.SendData(b, s.replay[s.sent:], whole)
		if err != nil {
			return // the endpoint's own event says why
		}
		if s.sent += n; s.sent < len(s.replay) {
			return
		}
		if whole {
			s.ended = true
			return
		}
	}
	if !s.replayable {
		s.down.Forward(b, s.up, nil, false)
	}
}

// absorb moves what was kept of the body into replay. A body that does not fit, or that has trailers,
// is not kept: this attempt is the last.
func (s *http2Stream) absorb(b *h2.Batch) {
	n := s.down.Buffered()
	if len(s.replay)+n > s.p.cfg.MaxReplay || s.down.Trailers() != nil {
		s.replayable = false
		return
	}
	at := len(s.replay)
	s.replay = append(s.replay, make([]byte, n)...)
	s.down.Take(b, s.replay[at:])
}

func (s *http2Stream) fromEndpoint(e h2.Event) {
	switch e.Kind {
	case h2.Headers:
		s.answer(e)
	case h2.Data, h2.Trailers:
		s.download(e)
	case h2.Writable:
		s.upload(e.Batch, nil, false)
	case h2.Closed:
		if !s.answers { // all of the answer is here, so the rest of the request was not wanted
			s.settle(e.Batch, s.broken(e.Err))
		}
	}
}

// answer passes a head on.
func (s *http2Stream) answer(e h2.Event) {
	h := s.up.Head()
	if h.Status < 200 {
		_ = s.down.SendHead(e.Batch, h, false) // a caller that is gone has its own event
		return
	}
	x := &s.exchange
	x.obs.Status = h.Status
	x.headAfter = time.Since(x.obs.Time) - x.last().Start
	if o := s.peerRefusal(h); o.reason != "" {
		s.settle(e.Batch, o)
		return
	}
	s.begun, s.replayable = true, false
	if !s.grpc && (h.Length < 0 || h.Length > bodyTimeout) && x.obs.Method != "HEAD" {
		s.silence = true
		s.arm(time.Now().Add(x.route.idle))
	}
	s.noteGRPC(h)
	if !x.place.peer() {
		hideInternalFields(h)
	}
	if err := s.down.SendHead(e.Batch, h, e.End); err != nil {
		return
	}
	if e.End {
		s.settle(e.Batch, outcome{})
	}
}

// hideInternalFields drops fields that only Shoal may set: an application must not forge a refusal.
func hideInternalFields(h *h2.Head) {
	kept := h.Fields[:0]
	for _, f := range h.Fields {
		if !strings.HasPrefix(f.Name, internalPrefix) {
			kept = append(kept, f)
		}
	}
	h.Fields = kept
}

// noteGRPC records the status of a gRPC call, which stands in the trailers or in the only head.
func (s *http2Stream) noteGRPC(h *h2.Head) {
	if !s.grpc {
		return
	}
	if v := h.Get("grpc-status"); v != "" {
		s.obs.GRPCStatus, _ = strconv.Atoi(v) // what is no number is 0, and the caller's to judge
	}
}

func (s *http2Stream) download(e h2.Event) {
	s.obs.BytesOut += int64(len(e.Data))
	if s.silence {
		s.until = time.Now().Add(s.route.idle)
	}
	if e.Kind == h2.Trailers {
		s.noteGRPC(s.up.Trailers())
	}
	s.answers = e.End
	if s.up.Forward(e.Batch, s.down, e.Data, e.End) {
		s.settle(e.Batch, outcome{})
	}
}

// broken is the outcome of an attempt whose stream, or connection, the endpoint ended.
func (s *http2Stream) broken(err *h2.StreamError) outcome {
	o := outcome{reason: fleet.ReasonUpstreamReset, begun: s.begun, unseen: err.Unprocessed}
	switch {
	case !err.Remote:
		o.reason, o.detail = fleet.ReasonUpstreamMalformed, "answered with what is not HTTP/2: "+err.Reason
	case s.begun:
		o.detail = fmt.Sprintf("broke off in the middle of its answer (%s: %s)", err.Code, err.Reason)
	default:
		o.detail = fmt.Sprintf("ended the stream without an answer (%s: %s)", err.Code, err.Reason)
	}
	return o
}

// settle ends an attempt.
func (s *http2Stream) settle(b *h2.Batch, o outcome) {
	s.up.Release(b)
	s.up, s.phase, s.until = nil, waiting, time.Time{}
	if s.retry(o) {
		go s.walk()
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
	s.down.Release(b)
	s.obs.BytesIn = s.bytesIn
	s.observe()
	s.phase = done
	s.reset()
	http2Streams.Put(s)
}
