package proxy

import (
	"fmt"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

const (
	maxAttempts = 4 // records of tries that one exchange keeps
	maxSeen     = 3 // tries that may each have been seen by an application

	dialTimeout = 5 * time.Second
	waitFirst   = 10 * time.Millisecond
	waitLast    = 250 * time.Millisecond
)

// balance chooses the place of the next attempt, and counts the exchange in there. Where none can
// take it now it waits for one: an instance may be starting, or restarting after a crash, or all may have
// as much to do as they can.
func (x *exchange) balance() bool {
	if x.enter(x.choose()) {
		return true
	}
	for wait := waitFirst; ; wait = min(2*wait, waitLast) {
		changed := x.p.changes() // before the look, so that no change is missed
		if x.enter(x.choose()) || x.full && x.stand() {
			return true
		}
		if x.refusal != nil || !x.await(changed, wait) {
			return false
		}
	}
}

// enter counts x in; false where the place drains, is full, or is being tried by another exchange.
func (x *exchange) enter(pl *place) bool {
	if pl == nil || !pl.enter() {
		return false
	}
	if !x.mayTry(pl) {
		pl.leave(true)
		return false
	}
	x.place, x.working = pl, true
	x.attempt()
	return true
}

// mayTry: of all exchanges that find an ejection over, one tries whether the place is well again. The others
// enter only where they have no other place.
func (x *exchange) mayTry(pl *place) bool {
	until := pl.until.Load()
	if until == 0 || until > x.p.now() {
		return true
	}
	if !pl.trying.CompareAndSwap(false, true) {
		return x.desperate
	}
	x.trial = true
	x.decide(fleet.Reopening)
	return true
}

// rest says that the place works on x no more, although x goes on: it is a tunnel, or its answer streams.
func (x *exchange) rest() {
	if !x.working {
		return
	}
	x.working = false
	x.place.busy.rest()
	x.route.load.line.next(x.p.now())
}

// pause is how long an exchange has waited in all before it asks the same places once more: it grows
// with every round.
func (x *exchange) pause() time.Duration {
	return min(waitFirst<<min(x.tries, 10), time.Duration(x.tries)*waitLast)
}

// await waits for a change of the table or of what is attached, or for a moment; false ends the
// exchange.
func (x *exchange) await(changed <-chan struct{}, wait time.Duration) bool {
	if f := x.hopeless(); f != nil {
		return x.refuse(f)
	}
	began := time.Now()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-x.p.ctx.Done():
	}
	x.waited += time.Since(began)
	x.rematch()
	return true
}

// hopeless says why x waits no longer, or nil.
func (x *exchange) hopeless() *refusal {
	r := x.route
	waited := time.Since(x.obs.Time)
	limit := x.patience()
	switch {
	case x.left():
		return callerGone(r.callee)
	case x.p.ctx.Err() != nil:
		return noEndpoint(r.callee, "this process is stopping")
	case waited < limit:
		return nil
	case x.tries > 0:
		f := failed(r.callee, outcome{reason: fleet.ReasonConnectFailed, detail: fmt.Sprintf("accepted no connection in %v", waited.Round(time.Millisecond))})
		return f
	}
	return noEndpoint(r.callee, x.absence(waited))
}

func (x *exchange) absence(waited time.Duration) string {
	if len(x.route.places) == 0 {
		return "it has none"
	}
	return fmt.Sprintf("%d known, none reachable in %v", len(x.route.places), waited.Round(time.Millisecond))
}

// patience is how long x waits for an endpoint: up to its deadline where one is on its way or is
// restarted by its node; briefly for what runs outside; not at all where nothing is expected.
func (x *exchange) patience() time.Duration {
	r := x.route
	if x.peer {
		return 0 // who called the peer has others to try, and waits itself
	}
	limit := x.p.cfg.Timeout
	if !x.deadline.IsZero() {
		limit = x.deadline.Sub(x.obs.Time)
	}
	if r.service != nil && r.service.Starting {
		return limit
	}
	for _, pl := range r.places {
		switch {
		case pl.state == fleet.Draining:
			continue
		case pl.address == "":
			return limit
		}
		return min(limit, x.p.cfg.Patience)
	}
	return 0
}

// rematch looks the route up in the newest table, after a wait: the instance that x waits for is not
// in the one that it began with.
func (x *exchange) rematch() {
	t := x.p.table.Load()
	if t == x.table || x.route.service == nil {
		return
	}
	r := t.again(x.route)
	if r == nil || r.refusal != nil {
		return
	}
	x.table, x.place = t, nil
	if r.load == x.route.load {
		x.route = r
	}
}

// verdict is the refusal for an exchange whose last attempt ended as o says.
func (x *exchange) verdict(o outcome) *refusal {
	switch {
	case o.final != nil:
		return o.final
	case o.reason == fleet.ReasonCallerGone && x.stalled != nil && x.stalled.Load():
		return slowReader()
	case o.reason == fleet.ReasonCallerGone:
		return callerGone(x.route.callee)
	case o.reason == fleet.ReasonOverloaded:
		return x.overloaded(0)
	case o.reason == fleet.ReasonTimeout:
		return timedOut(x.route.callee, x.deadline.Sub(x.obs.Time).Round(time.Millisecond))
	}
	return failed(x.route.callee, o)
}

func callerGone(callee string) *refusal {
	return &refusal{
		status: 499, reason: fleet.ReasonCallerGone,
		detail: "the caller left before " + callee + " had answered.",
	}
}
