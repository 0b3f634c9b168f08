package proxy

import (
	"cmp"
	"fmt"
	mrand "math/rand/v2"
	"slices"
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
// take it now it waits for one: an instance may be starting, or restarting after a crash.
func (x *exchange) balance() bool {
	if x.enter(x.choose()) {
		return true
	}
	for wait := waitFirst; ; wait = min(2*wait, waitLast) {
		changed := x.p.changes() // before the look, so that no change is missed
		if x.enter(x.choose()) {
			return true
		}
		if !x.await(changed, wait) {
			return false
		}
	}
}

func (x *exchange) enter(pl *place) bool {
	if pl == nil || !pl.enter() {
		return false
	}
	x.place = pl
	x.attempt()
	return true
}

// choose takes the better of two places by chance (power of two choices, by expected wait). Places
// that were ejected, or that failed this exchange already, count only where there are no others.
func (x *exchange) choose() *place {
	places := x.route.places
	if len(places) == 1 && x.tries == 0 {
		return usable(places[0])
	}
	var two [2]*place
	n, rank, now := 0, failedBefore+1, x.p.now()
	for _, pl := range places {
		r := x.rank(pl, now)
		if r > rank || !pl.reachable() {
			continue
		}
		if r < rank {
			n, rank = 0, r
		}
		if i := mrand.IntN(n + 1); n < 2 {
			two[n] = pl
		} else if i < 2 {
			two[i] = pl
		}
		n++
	}
	if rank == failedBefore && x.waited < x.pause() {
		return nil
	}
	if n < 2 {
		return two[0]
	}
	return better(two, now)
}

// better is one of two by chance, unless the other is clearly the better one.
func better(two [2]*place, now int64) *place {
	i := mrand.IntN(2)
	if two[1-i].score(now) < 0.8*two[i].score(now) {
		return two[1-i]
	}
	return two[i]
}

func usable(pl *place) *place {
	if !pl.reachable() {
		return nil
	}
	return pl
}

// The ranks of a place: lower ones are asked first.
const (
	promising = iota
	ejected
	failedBefore // in this exchange
)

func (x *exchange) rank(pl *place, now int64) int {
	switch {
	case slices.Contains(x.avoid[:], pl.endpoint):
		return failedBefore
	case pl.ejected.Load() > now, pl.via != nil && pl.via.unwell():
		return ejected
	}
	return promising
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

// retry decides whether another attempt is right, after one that ended as o says, and counts the
// exchange out where it was.
func (x *exchange) retry(o outcome) bool {
	a := x.last()
	x.obs.Duration = time.Since(x.obs.Time)
	a.Duration = x.obs.Duration - a.Start
	x.place.leave()
	if o.reason == "" {
		a.Outcome = outcomeOf(x.obs.Status)
		x.place.answered(cmp.Or(x.headAfter, a.Duration), x.obs.Time.Add(x.obs.Duration))
		return false
	}
	a.Outcome = string(o.reason)
	if x.mayRepeat(o) {
		x.shun(o)
		return true
	}
	x.refusal = x.verdict(o)
	return false
}

// shun remembers a place that failed, so that others are asked before it. A kept-alive connection
// that turns out to be closed says nothing against the place: a fresh one is tried at once.
func (x *exchange) shun(o outcome) {
	x.fresh = true
	if o.stale {
		return
	}
	x.avoid[x.avoided%len(x.avoid)] = x.place.endpoint
	x.avoided++
}

// mayRepeat: what no application saw may be sent again; what one may have seen only where that is
// safe, within the budget, and never a delivery, whose redelivery is the broker's.
func (x *exchange) mayRepeat(o outcome) bool {
	switch {
	case o.begun, !x.replayable, x.left(), o.final != nil:
		return false
	case !x.deadline.IsZero() && !time.Now().Before(x.deadline):
		return false
	case o.unseen:
		return true
	case o.reason != fleet.ReasonUpstreamReset:
		return false
	case x.source.Service == fleet.Events || !x.idempotent || x.tries >= maxSeen:
		return false
	}
	return x.route.load.budget.take(x.p.now())
}

// verdict is the refusal for an exchange whose last attempt ended as o says.
func (x *exchange) verdict(o outcome) *refusal {
	switch {
	case o.final != nil:
		return o.final
	case o.reason == fleet.ReasonCallerGone:
		return callerGone(x.route.callee)
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
