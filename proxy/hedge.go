package proxy

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// A hedged exchange (Dean and Barroso, The Tail at Scale, 2013) that has no answer after its route's hedge is
// sent to a second instance as well. The first answer counts; the other attempt is cancelled. The
// attempt that x itself describes and its rival change places, so that all else knows one attempt only.

// rival is the other attempt of a hedged exchange.
type rival struct {
	place                  *place
	try                    int
	working, trial, dialed bool
}

func (x *exchange) swap(r *rival) {
	x.place, r.place = r.place, x.place
	x.current, r.try = r.try, x.current
	x.working, r.working = r.working, x.working
	x.trial, r.trial = r.trial, x.trial
	x.dialed, r.dialed = r.dialed, x.dialed
}

// hedges reports whether the attempt in progress may get a rival. Between nodes the caller's decides.
func (x *exchange) hedges() bool {
	return x.route.hedge > 0 && !x.peer && x.idempotent && x.replayable && x.tries == 1
}

// hedge begins a second attempt, whose rival is then the first; false: there is no other instance that is
// well, or the callee's budget is spent.
func (x *exchange) hedge() (r rival, ok bool) {
	before := x.obs.Decisions
	x.avoid[x.avoided%len(x.avoid)] = x.place.endpoint
	x.avoided++
	pl := x.choose()
	if pl == nil || x.rank(pl, x.p.now()) != promising {
		x.obs.Decisions = before
		x.unshun()
		return r, false
	}
	if !x.afford() || !pl.enter() {
		x.unshun()
		return r, false
	}
	x.decide(fleet.Hedged)
	r = rival{x.place, x.current, x.working, x.trial, x.dialed}
	x.place, x.working, x.trial = pl, true, false
	x.attempt()
	return r, true
}

// unshun forgets that the last place is not to be asked again.
func (x *exchange) unshun() {
	x.avoided--
	x.avoid[x.avoided%len(x.avoid)] = nil
}

// withdraw ends the rival's attempt.
func (x *exchange) withdraw(r *rival, o outcome) {
	x.swap(r)
	a := x.last()
	x.obs.Duration = time.Since(x.obs.Time)
	a.Duration, a.Outcome = x.obs.Duration-a.Start, string(o.reason)
	if o.reason == fleet.ReasonCallerGone {
		a.Outcome = "cancelled" // the caller is the hedge, which has its answer
	}
	x.settle(o, a.Duration)
	x.swap(r)
}

// race is one of two attempts of a hedged exchange in HTTP/1.1, on a goroutine of its own until an answer begins.
// Both are over when forwardHedged returns, so that they may look at the session's request.
type race struct {
	rival rival // of the first: the attempt that is not x's
	y     *exchange
	stop  context.CancelFunc
	gone  atomic.Bool // the caller left, or the other one won
	u     atomic.Pointer[upstream]
	c     *meshCall // where the way is HTTP/2's: to another node, or to an application that speaks nothing else
	b     *buffer
	n     int
	err   error
	o     outcome // where there was no connection, or the answer is a peer's own
}

// hedgeable: the whole request is here, and may be sent twice.
func (s *session) hedgeable(x *exchange) bool {
	return x.hedges() && s.pump == nil && s.body.Done() && !s.req.Upgrade &&
		len(s.head)+len(s.first) < bufferSize/2
}

// forwardHedged is forward for an exchange that may be sent to two instances.
func (s *session) forwardHedged(x *exchange) outcome {
	done := make(chan *race, 2)
	defer s.races[0].Store(nil)
	defer s.races[1].Store(nil)
	first := s.race(0, x, s.meshCall(), done)
	timer := time.NewTimer(x.route.hedge)
	defer timer.Stop()
	select {
	case r := <-done:
		return s.finishRace(x, r)
	case <-timer.C:
	}
	r, ok := x.hedge()
	if !ok {
		return s.finishRace(x, <-done)
	}
	first.rival = r
	s.race(1, x, newMeshCall(s), done)
	return s.decideRace(x, first, done)
}

// race begins the attempt that x describes. c is for it alone.
func (s *session) race(n int, x *exchange, c *meshCall, done chan<- *race) *race {
	y := x.copy()
	r := &race{y: y, b: getBuffer()}
	y.ctx, r.stop = context.WithCancel(x.p.ctx)
	y.gone = &r.gone
	if y.throughHTTP2() {
		r.c = c
	}
	s.races[n].Store(r)
	if x.left() {
		r.leave() // before it was stored, nobody could tell it
	}
	go func() {
		r.run(s)
		done <- r
	}()
	return r
}

// run sends the request and waits for the beginning of an answer.
func (r *race) run(s *session) {
	if r.c != nil {
		r.runStream()
		return
	}
	u, o := r.y.connect()
	if r.o = o; u == nil {
		return
	}
	r.u.Store(u)
	if r.y.left() { // looked at after u is there to be interrupted
		r.err = errGone
		return
	}
	out := append(s.compose(make([]byte, 0, bufferSize), r.y), s.first...)
	r.n, r.err = u.roundTrip(r.y, out, r.b.b)
}

func (r *race) runStream() {
	c := r.c
	if r.o = c.open(r.y); r.o.reason != "" {
		return
	}
	if r.err = c.await(r.y, r.y.deadline, c.final); r.err == nil && r.y.place.peer() {
		r.o = r.y.refusedByPeer(fleet.Reason(c.st.Head().Get("shoal-reason")))
	}
}

// leave ends an attempt that nobody waits for any more; its goroutine notices.
func (r *race) leave() {
	r.gone.Store(true)
	r.stop()
	if u := r.u.Load(); u != nil {
		u.interrupt()
	}
	if r.c != nil {
		r.c.halt()
		r.c.interrupt()
	}
}

// copy is x for a goroutine of its own, that connects and waits.
func (x *exchange) copy() *exchange {
	y := *x
	return &y
}

// decideRace waits for the first answer, and cancels the other attempt. While it does, x is the second's.
func (s *session) decideRace(x *exchange, first *race, done <-chan *race) outcome {
	one := <-done
	won := one.err == nil && one.o.reason == ""
	if (one == first) == won {
		x.swap(&first.rival) // the first attempt counts: it won, or is the one that is left
	}
	if !won {
		x.withdraw(&first.rival, one.failure())
		one.free()
		return s.finishRace(x, <-done)
	}
	x.withdraw(&first.rival, outcome{reason: fleet.ReasonCallerGone})
	for n := range s.races {
		if r := s.races[n].Load(); r != one {
			r.leave()
		}
	}
	o := s.finishRace(x, one)
	(<-done).free()
	return o
}

// failure is how a race that brought no answer ended.
func (r *race) failure() outcome {
	switch {
	case r.o.reason != "":
		return r.o
	case r.c != nil:
		return meshOutcome(r.err, false)
	case errors.Is(r.err, errGone):
		return outcome{reason: fleet.ReasonCallerGone}
	}
	return outcome{reason: fleet.ReasonUpstreamReset, stale: r.u.Load().used}
}

// free ends what a race that does not count still has.
func (r *race) free() {
	r.stop()
	putBuffer(r.b)
	if u := r.u.Load(); u != nil {
		abort(u.Conn)
		u.close()
	}
	if r.c != nil {
		r.c.release()
	}
}

// finishRace goes on with the attempt that was answered, or that failed as the last one.
func (s *session) finishRace(x *exchange, r *race) outcome {
	defer r.stop()
	defer putBuffer(r.b)
	x.dialed = x.dialed || r.y.dialed
	if r.c != nil {
		return s.finishStream(x, r)
	}
	u := r.u.Load()
	if u == nil {
		return r.o
	}
	s.waiting.Store(u)
	r.b.r, r.b.w = 0, r.n
	err := r.err
	if err == nil {
		err = s.readAnswer(x, u, r.b)
	}
	if err != nil {
		return s.failed(x, u, r.b, err)
	}
	return s.relay(x, u, r.b)
}

func (s *session) finishStream(x *exchange, r *race) outcome {
	c := r.c
	s.mesh = c
	s.calling.Store(c)
	defer s.calling.Store(nil)
	switch {
	case r.o.reason != "":
		c.release()
		return r.o
	case r.err != nil:
		return c.failed(x, r.err)
	}
	return c.answer(x)
}
