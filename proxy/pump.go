package proxy

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/wire/h1"
)

// pump carries the rest of a request's body upstream while its session reads the answer: the only
// goroutine that an exchange may have beside its own.
type pump struct {
	s       *session
	body    h1.Body
	replay  []byte // the body so far; nil once it is longer than Config.MaxReplay
	done    chan struct{}
	stopped atomic.Bool
	read    atomic.Bool // the whole body was taken from the caller
	awaits  atomic.Bool // it waits for the caller

	// Read by the session once done is closed.
	took int64  // bytes taken from the caller
	bad  error  // the body is malformed
	lost bool   // the upstream takes no more
	rest []byte // of the caller's bytes, beyond the body
}

// finishTime is how long an answered exchange waits for the rest of its request's body.
const finishTime = 500 * time.Millisecond

// sink is where a pump carries a body to.
type sink interface {
	// take writes all of p, a part of the body as it came, framing included. What makes no progress for
	// idle fails.
	take(p []byte, idle time.Duration) error
	// halt ends a take in progress, and fails all later ones until resume.
	halt()
	resume()
}

// startPump begins, or after a failed attempt continues, to carry the body to a sink.
func (s *session) startPump(x *exchange, to sink) {
	if s.pump == nil {
		s.pump = &pump{s: s, body: s.body, replay: append(make([]byte, 0, len(s.first)), s.first...)}
	}
	pm := s.pump
	pm.done = make(chan struct{})
	pm.stopped.Store(false)
	pm.lost = false
	pm.awaits.Store(!pm.body.Done()) // from now on, whenever its goroutine begins
	s.disarm()
	go pm.run(to, x.route.idle)
}

func (pm *pump) run(to sink, idle time.Duration) {
	defer close(pm.done)
	b := getBuffer()
	defer putBuffer(b)
	for !pm.body.Done() {
		pm.awaits.Store(true)
		n, err := pm.next(b.b, idle)
		if err != nil {
			pm.abortedBy(err, idle)
			return
		}
		pm.awaits.Store(false)
		k, err := pm.body.Take(b.b[:n])
		if err != nil {
			pm.bad = err
			pm.s.left()
			return
		}
		pm.take(b.b[:k])
		pm.read.Store(pm.body.Done())
		if k < n {
			pm.rest = append(pm.rest, b.b[k:n]...)
		}
		if !pm.carry(to, b.b[:k], idle) {
			return
		}
	}
}

// next reads more of the body. A deadline that others set to wake the session is not the end.
func (pm *pump) next(p []byte, idle time.Duration) (int, error) {
	s := pm.s
	until := time.Now().Add(idle)
	for {
		_ = s.conn.SetReadDeadline(until)
		if pm.stopped.Load() {
			return 0, errAgain
		}
		n, err := s.conn.Read(p)
		if n > 0 || err == nil {
			return n, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(until) {
			return 0, err
		}
	}
}

// abortedBy: the caller left in the middle of its request, or was silent for too long, unless the session
// stopped the pump.
func (pm *pump) abortedBy(err error, idle time.Duration) {
	if pm.stopped.Load() {
		return
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		pm.bad = &h1.Error{Status: 408, TooLarge: true, Limit: limitIdle, Text: silentFor(idle)}
	}
	pm.s.left()
}

// take keeps the bytes for another attempt, as long as they are few.
func (pm *pump) take(p []byte) {
	pm.took += int64(len(p))
	if pm.replay == nil {
		return
	}
	if len(pm.replay)+len(p) > pm.s.p.cfg.MaxReplay {
		pm.replay = nil
		return
	}
	pm.replay = append(pm.replay, p...)
}

// carry writes p upstream. An upstream that takes no more may have answered early: what it said is the
// session's to read.
func (pm *pump) carry(to sink, p []byte, idle time.Duration) bool {
	if pm.stopped.Load() {
		return false
	}
	if to.take(p, idle) != nil {
		pm.lost = true
		return false
	}
	return true
}

// stopPump ends the pump; what it has read stays for another attempt.
func (s *session) stopPump(x *exchange, to sink) {
	pm := s.pump
	pm.stopped.Store(true)
	_ = s.conn.SetReadDeadline(longAgo)
	to.halt()
	<-pm.done
	s.disarm()
	x.obs.BytesIn += pm.took
	pm.took = 0
	x.replayable = x.replayable && pm.replay != nil
}

// finishPump waits a moment for the rest of the body, once the answer is complete, and reports whether
// both connections can go on.
func (s *session) finishPump(x *exchange, to sink) bool {
	timer := time.NewTimer(finishTime)
	defer timer.Stop()
	select {
	case <-s.pump.done:
	case <-timer.C:
	}
	s.stopPump(x, to)
	to.resume()
	return s.pump.body.Done() && !s.pump.lost
}

// endBody consumes what the exchange took of the caller's bytes. A body that did not end makes the rest
// of the connection unreadable.
func (s *session) endBody() {
	finished := s.body.Done() || s.pump != nil && s.pump.body.Done()
	s.keep = s.keep && finished
	if s.in != nil {
		s.in.r += s.taken
	}
	s.taken = 0
	if s.pump != nil && len(s.pump.rest) > 0 {
		b := s.buffer()
		b.w += copy(b.room(len(b.b)), s.pump.rest)
	}
	s.pump = nil
	if !finished && s.begun && !s.broke && !s.inside && !s.gone.Load() {
		s.linger()
	}
}
