package proxy

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h1"
	"github.com/shoalrun/shoal/wire/h2"
)

// meshCall is an HTTP/1.1 exchange that goes on as a stream of HTTP/2: to another node, which runs the
// instance, or to a local application that speaks nothing else. Its session's goroutine writes the request and waits for the answer, which the goroutine that
// reads the connection brings; a pump may write beside it. A session has one, used again and again.
type meshCall struct {
	s      *session
	wake   chan struct{} // for the session's goroutine
	room   chan struct{} // for a pump that waits for a window
	timer  *time.Timer
	rang   atomic.Bool // the timer fired
	halted atomic.Bool

	request h2.Head
	fields  []h2.Field
	names   http2Names
	content h1.Body // takes the framing off the request's body
	gone    *atomic.Bool

	mu       sync.Mutex // guards all below
	st       *h2.Stream // nil between exchanges
	headed   bool       // the final head is there
	ended    bool       // nothing more comes
	err      *h2.StreamError
	interims int
	interim  []byte // heads of 1xx answers, ready to be passed on
	fires    time.Time
}

// later is for writers that flush once all is said.
var later = h2.Later()

// forwardPeer takes the request to another node and the answer back.
func (s *session) forwardPeer(x *exchange) outcome {
	c := s.meshCall()
	s.calling.Store(c)
	defer s.calling.Store(nil)
	if o := c.open(x); o.reason != "" {
		return o
	}
	return c.answer(x)
}

// meshCall returns the session's own.
func (s *session) meshCall() *meshCall {
	if s.mesh == nil {
		s.mesh = newMeshCall(s)
	}
	return s.mesh
}

func newMeshCall(s *session) *meshCall {
	return &meshCall{s: s, wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// answer waits for the answer's head and relays what comes.
func (c *meshCall) answer(x *exchange) outcome {
	for {
		if err := c.await(x, x.deadline, c.answered); err != nil {
			return c.failed(x, err)
		}
		if c.passInterim() {
			return c.relay(x)
		}
	}
}

// open sends the request's head, and what is here of its body, on a connection that takes it.
func (c *meshCall) open(x *exchange) outcome {
	l := x.linkFor(c.s.req.Length)
	for range 3 {
		if x.left() {
			return outcome{reason: fleet.ReasonCallerGone}
		}
		if c.send(x, l) {
			return outcome{}
		}
		if o := l.connect(x); o.reason != "" {
			return o
		}
	}
	return outcome{reason: fleet.ReasonConnectFailed, unseen: true, detail: "takes no further HTTP/2 stream"}
}

func (c *meshCall) send(x *exchange, l *http2Link) bool {
	s := c.s
	first := s.first
	if s.pump != nil {
		first = s.pump.replay
	}
	whole := s.body.Done() || s.pump != nil && s.pump.body.Done()
	c.content = s.req.Body()
	c.content.Keep = true
	c.compose(x)
	c.gone = x.gone
	c.mu.Lock()
	c.headed, c.ended, c.err, c.interims, c.interim = false, false, nil, 0, c.interim[:0]
	c.halted.Store(false)
	st := l.open(x.source.Service, later, &c.request, c.content.Done(), c)
	c.st = st
	c.mu.Unlock()
	if st == nil {
		return false
	}
	if len(first) > 0 {
		_ = c.take(first, x.route.idle) // an end of the stream is noticed by who waits for the answer
	}
	if !whole {
		s.startPump(x, c)
	}
	st.Conn().FlushSoon()
	return true
}

// Receive takes what comes of the answer.
func (c *meshCall) Receive(st *h2.Stream, e h2.Event) {
	c.mu.Lock()
	if st != c.st || st == nil {
		c.mu.Unlock()
		return
	}
	switch e.Kind {
	case h2.Headers:
		if h := st.Head(); h.Status < 200 {
			c.takeInterimLocked(h)
		} else {
			c.headed = true
		}
		c.ended = e.End
	case h2.Data, h2.Trailers:
		st.Keep(e.Data, e.End)
		c.ended = e.End
	case h2.Closed:
		c.err = e.Err
	case h2.Writable:
	}
	c.mu.Unlock()
	if e.Kind == h2.Writable || e.Kind == h2.Closed {
		signal(c.room)
	}
	if e.Kind != h2.Writable {
		signal(c.wake)
	}
}

func (c *meshCall) takeInterimLocked(h *h2.Head) {
	if c.interims++; c.interims > maxInterim {
		c.err = &h2.StreamError{Code: h2.EnhanceYourCalm, Reason: fmt.Sprintf("more than %d interim answers (1xx)", maxInterim)}
		return
	}
	c.interim = appendInterim(c.interim, h)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// answered reports whether a head is there.
func (c *meshCall) answered() (bool, error) {
	switch {
	case c.err != nil && c.interims > maxInterim:
		return false, c.err
	case c.headed || len(c.interim) > 0:
		return true, nil
	case c.err != nil:
		return false, c.err
	}
	return false, nil
}

// final reports whether the final head is there.
func (c *meshCall) final() (bool, error) {
	if !c.headed && c.err != nil {
		return false, c.err
	}
	return c.headed, nil
}

// passInterim passes 100 (Continue), 103 and their like on to a caller that knows them, and reports
// whether the final head is there.
func (c *meshCall) passInterim() (final bool) {
	s := c.s
	c.mu.Lock()
	heads := c.interim
	c.interim = nil
	final = c.headed
	c.mu.Unlock()
	if len(heads) > 0 && s.req.Minor > 0 {
		s.x.obs.BytesOut += int64(len(heads))
		_ = s.write(heads) // a caller that is gone is noticed with its answer
	}
	return final
}

// some reports whether there is more of the body, or its end.
func (c *meshCall) some() (bool, error) {
	switch {
	case c.st.Buffered() > 0 || c.ended:
		return true, nil
	case c.err != nil:
		return false, c.err
	}
	return false, nil
}

// await waits until ready holds, which is called with c.mu held.
func (c *meshCall) await(x *exchange, until time.Time, ready func() (bool, error)) error {
	for {
		c.mu.Lock()
		ok, err := ready()
		if !ok && err == nil {
			c.armLocked(until)
		}
		c.mu.Unlock()
		switch {
		case ok || err != nil:
			return err
		case x.left():
			return errGone
		case c.rang.Swap(false) && !until.IsZero() && !time.Now().Before(until):
			return errTimeout
		}
		<-c.wake
	}
}

// armLocked has the timer wake the session by until. One that fires early costs a look; so most exchanges
// set none.
func (c *meshCall) armLocked(until time.Time) {
	if until.IsZero() || !c.fires.IsZero() && !until.Before(c.fires) {
		return
	}
	c.fires = until
	if c.timer == nil {
		c.timer = time.AfterFunc(time.Until(until), c.ring)
		return
	}
	c.timer.Reset(time.Until(until))
}

func (c *meshCall) ring() {
	c.mu.Lock()
	c.fires = time.Time{}
	c.mu.Unlock()
	c.rang.Store(true)
	signal(c.wake)
}

// interrupt wakes who waits, to see that the caller has left.
func (c *meshCall) interrupt() {
	signal(c.wake)
	signal(c.room)
}

// take sends a part of the request's body, without its framing.
func (c *meshCall) take(p []byte, idle time.Duration) error {
	for len(p) > 0 {
		content, n, err := c.content.Next(p)
		if err != nil {
			return err
		}
		if p = p[n:]; len(content) == 0 && !c.content.Done() {
			continue
		}
		trailers := trailersOf(&c.content)
		if err := c.write(content, c.content.Done() && trailers == nil, idle); err != nil {
			return err
		}
		if trailers != nil {
			return c.finish(trailers)
		}
	}
	c.stream().Conn().FlushSoon()
	return nil
}

// finish ends the request with trailers.
func (c *meshCall) finish(trailers *h2.Head) error {
	st := c.stream()
	if err := st.SendHead(later, trailers, true); err != nil {
		return err
	}
	st.Conn().FlushSoon()
	return nil
}

func (c *meshCall) stream() *h2.Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.st
}

// write waits for windows until all of p is sent.
func (c *meshCall) write(p []byte, end bool, idle time.Duration) error {
	st := c.stream()
	var until time.Time
	for {
		if c.halted.Load() {
			return errGone
		}
		n, err := st.SendData(later, p, end)
		if err != nil {
			return err
		}
		if p = p[n:]; len(p) == 0 {
			return nil
		}
		st.Conn().FlushSoon()
		if n > 0 || until.IsZero() {
			until = time.Now().Add(idle)
		}
		if !time.Now().Before(until) || c.gone.Load() {
			return errTimeout
		}
		c.waitForRoom(until)
	}
}

func (c *meshCall) waitForRoom(until time.Time) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-c.room:
	case <-timer.C:
	}
}

func (c *meshCall) halt() {
	c.halted.Store(true)
	signal(c.room)
}

func (c *meshCall) resume() { c.halted.Store(false) }

// end gives the stream up: what is still under way of either message is cancelled over there at once.
func (c *meshCall) end(x *exchange) {
	if c.s.pump != nil {
		c.s.stopPump(x, c)
	}
	c.release()
}

func (c *meshCall) release() {
	c.mu.Lock()
	st := c.st
	c.st = nil
	c.mu.Unlock()
	if st != nil {
		st.Release(nil)
	}
}

// failed ends an attempt that brought no answer.
func (c *meshCall) failed(x *exchange, err error) outcome {
	s := c.s
	slow := s.pump != nil && s.pump.awaits.Load()
	c.end(x)
	if s.pump != nil && s.pump.bad != nil {
		s.keep = false
		f := rejection(s.pump.bad)
		return outcome{reason: f.reason, final: f}
	}
	if errors.Is(err, errTimeout) && slow {
		return x.slowBody()
	}
	return meshOutcome(err, false)
}
