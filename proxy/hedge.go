package proxy

import (
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

// hedge begins a second attempt, whose rival is then the first; false: there is no other instance that is
// well, or the callee's budget is spent.
func (x *exchange) hedge() (r rival, ok bool) {
	before := x.obs.Decisions
	x.avoid[x.avoided%len(x.avoid)] = x.place.endpoint
	x.avoided++
	pl := x.choose()
	if pl == nil || x.rank(pl, x.p.now()) != promising {
		x.obs.Decisions = before
		return r, false
	}
	if !x.afford() || !pl.enter() {
		return r, false
	}
	x.decide(fleet.Hedged)
	r = rival{x.place, x.current, x.working, x.trial, x.dialed}
	x.place, x.working, x.trial = pl, true, false
	x.attempt()
	return r, true
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

// race is one of two round trips of a hedged exchange in HTTP/1.1, on a goroutine of its own.
type race struct {
	rival  rival // of the first: the attempt that is not x's
	dialed bool
	u      atomic.Pointer[upstream]
	over   atomic.Bool // the other one won
	b      *buffer
	n      int
	err    error
	o      outcome // where there was no connection
}

// hedgeable: the whole request is here, and may be sent twice.
func (s *session) hedgeable(x *exchange) bool {
	return x.idempotent && x.replayable && x.tries == 1 && s.pump == nil && s.body.Done() && !s.req.Upgrade &&
		len(s.head)+len(s.first) < bufferSize/2
}

// forwardHedged is forward for an exchange that may be sent to two instances.
func (s *session) forwardHedged(x *exchange) outcome {
	u, o := x.connect()
	if u == nil {
		return o
	}
	s.waiting.Store(u)
	if x.left() {
		s.waiting.Store(nil)
		u.close()
		return outcome{reason: fleet.ReasonCallerGone}
	}
	done := make(chan *race, 2)
	first := &race{b: getBuffer()}
	first.u.Store(u)
	out := append(s.compose(make([]byte, 0, bufferSize), x), s.first...)
	go func() {
		first.n, first.err = u.roundTrip(x, out, first.b.b)
		done <- first
	}()
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
	second := &race{b: getBuffer()}
	go s.runSecond(x.copy(), second, append(s.compose(make([]byte, 0, bufferSize), x), s.first...), done)
	return s.decideRace(x, first, second, done)
}

// copy is x for a goroutine of its own, that connects and waits.
func (x *exchange) copy() *exchange {
	y := *x
	return &y
}

func (s *session) runSecond(y *exchange, r *race, out []byte, done chan<- *race) {
	defer func() { done <- r }()
	u, o := y.connect()
	if r.o = o; u == nil {
		return
	}
	r.dialed = y.dialed
	r.u.Store(u)
	s.second.Store(u)
	switch {
	case r.over.Load():
		r.close()
	case y.left():
		r.err = errGone
	default:
		r.n, r.err = u.roundTrip(y, out, r.b.b)
	}
}

// decideRace waits for the first answer, and cancels the other attempt. While it does, x is the second's.
func (s *session) decideRace(x *exchange, first, second *race, done <-chan *race) outcome {
	one := <-done
	won := one.err == nil && one.o.reason == ""
	if (one == first) == won {
		x.swap(&first.rival) // the first attempt counts: it won, or is the one that is left
	}
	if !won {
		x.withdraw(&first.rival, one.failure())
		one.close()
		putBuffer(one.b)
		return s.finishRace(x, <-done)
	}
	loser := first
	if one == first {
		loser = second
	}
	x.withdraw(&first.rival, outcome{reason: fleet.ReasonCallerGone})
	loser.over.Store(true)
	loser.close()
	go func() { putBuffer((<-done).b) }()
	return s.finishRace(x, one)
}

// close ends the connection of a race, if that is not done: its goroutine, if it waits, ends by that.
func (r *race) close() {
	if u := r.u.Swap(nil); u != nil {
		abort(u.Conn)
		u.close()
	}
}

// failure is how a race that brought no answer ended.
func (r *race) failure() outcome {
	if r.o.reason != "" {
		return r.o
	}
	return outcome{reason: fleet.ReasonUpstreamReset, stale: r.u.Load().used}
}

// finishRace goes on with the attempt that was answered, or that failed as the last one.
func (s *session) finishRace(x *exchange, r *race) outcome {
	defer putBuffer(r.b)
	s.second.Store(nil)
	u := r.u.Load()
	if u == nil {
		s.waiting.Store(nil)
		return r.o
	}
	x.dialed = x.dialed || r.dialed
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
