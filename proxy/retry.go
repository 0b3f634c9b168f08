package proxy

import (
	"cmp"
	"strconv"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// retry decides whether another attempt is right, after one that ended as o says, and counts the
// exchange out where it was.
func (x *exchange) retry(o outcome) bool {
	a := x.last()
	x.obs.Duration = time.Since(x.obs.Time)
	a.Duration = x.obs.Duration - a.Start
	x.settle(o, cmp.Or(x.headAfter, a.Duration))
	if o.reason == "" {
		a.Outcome = outcomeOf(x.obs.Status)
		if o.repeat {
			x.shun(o)
		}
		return o.repeat
	}
	a.Outcome = string(o.reason)
	if x.mayRepeat(o) {
		x.shun(o)
		return true
	}
	x.refusal = x.verdict(o)
	return false
}

// settle ends an attempt in its place, which learns from it.
func (x *exchange) settle(o outcome, took time.Duration) {
	pl, now := x.place, x.at()
	c := x.judge(o, took, now)
	if pl.limit == 0 && (c == didWell && !x.dialed || c == didBadly && o.reason == fleet.ReasonTimeout) {
		pl.limiter.note(took, c == didWell, pl.busy.working(), now)
	}
	pl.leave(x.working)
	x.working = false
	x.route.load.line.next(now)
}

// at is the end of the last attempt, in nanoseconds since the proxy's epoch.
func (x *exchange) at() int64 { return int64(x.obs.Time.Add(x.obs.Duration).Sub(x.p.epoch)) }

// shun remembers a place that failed, so that others are asked before it. A kept-alive connection
// that turns out to be closed says nothing against the place: a fresh one is tried at once.
func (x *exchange) shun(o outcome) {
	x.fresh = true
	if !o.unseen {
		x.seen++
	}
	if o.stale {
		return
	}
	x.avoid[x.avoided%len(x.avoid)] = x.place.endpoint
	x.avoided++
}

// mayRepeat: what no application saw may be sent again; what one may have seen only where that is
// safe, and never a delivery, whose redelivery is the broker's. What was sent at all draws on the
// callee's retry budget; a connection that could not be made costs nobody anything.
func (x *exchange) mayRepeat(o outcome) bool {
	switch {
	case o.begun, !x.replayable, x.left(), o.final != nil:
		return false
	case !x.deadline.IsZero() && !time.Now().Before(x.deadline):
		return false
	case o.unseen && (o.reason == fleet.ReasonConnectFailed || o.reason == fleet.ReasonNoEndpoint):
		return true
	case o.reason == fleet.ReasonOverloaded:
		return x.another() && x.afford()
	case o.unseen:
		return x.afford()
	}
	return o.reason == fleet.ReasonUpstreamReset && x.mayBeSeenAgain() && x.afford()
}

// mayBeSeenAgain: whether an application may see the request once more.
func (x *exchange) mayBeSeenAgain() bool {
	return x.idempotent && x.replayable && x.source.Service != fleet.Events && x.seen+1 < x.route.attempts
}

// afford draws on the callee's retry budget.
func (x *exchange) afford() bool {
	l := x.route.load
	if l.budget.take(x.p.now(), l.traffic.begun()) {
		return true
	}
	x.decide(fleet.BudgetSpent)
	return false
}

// unavailable looks at an answer that says that the instance is unavailable (503, or UNAVAILABLE without
// anything else), before any of it went to the caller. Where another instance may be asked, it is; an
// instance that says when it will be back is left alone until then, and its word goes to the caller: a
// retry would have to wait as long (RFC 9110 section 10.2.3).
func (x *exchange) unavailable(retryAfter string) (repeat bool) {
	if retryAfter != "" {
		if d, ok := parseRetryAfter(retryAfter, x.obs.Time); ok {
			x.place.pause(d)
			x.decide(fleet.RetryAfter)
			return false
		}
	}
	return x.mayBeSeenAgain() && !x.left() && x.another() && x.afford()
}

// another reports whether there is a promising place that x has not asked.
func (x *exchange) another() bool {
	now := x.p.now()
	for _, pl := range x.route.places {
		if pl.endpoint != x.place.endpoint && x.rank(pl, now) <= promising {
			return true
		}
	}
	return false
}

// parseRetryAfter reads seconds or a date (RFC 9110 section 10.2.3).
func parseRetryAfter(v string, now time.Time) (time.Duration, bool) {
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	at, err := time.Parse(time.RFC1123, v)
	if err != nil {
		return 0, false
	}
	return max(0, at.Sub(now)), true
}
