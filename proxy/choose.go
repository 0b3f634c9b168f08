package proxy

import (
	mrand "math/rand/v2"
	"slices"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// The ranks of a place: lower ones are asked first.
const (
	due          = iota // its ejection is over: the next request finds out
	promising           //
	shunned             // ejected, paused or unhealthy
	failedBefore        // in this exchange
	unusable            // not there, or full
)

// field is the places that one choice is between: those of the lowest rank.
type field struct {
	rank, n int
	two     [2]*place // of them, by chance
	near    [2]*place // of those on this node, by chance
	nears   int       // how many those are
	work    int64     // that they do
}

// choose picks the place of the next attempt by the callee's policy. Places that are ejected, or that failed
// this exchange already, count only where there are no others. Where it returns nil, x.full says that
// there are places, and all have as much to do as they can.
func (x *exchange) choose() *place {
	x.full, x.desperate = false, false
	if len(x.route.places) == 1 && x.tries == 0 {
		return x.only(x.route.places[0])
	}
	return x.chooseAt(x.p.now())
}

func (x *exchange) chooseAt(now int64) *place {
	f := x.survey(now)
	if x.full && f.rank > promising {
		return nil // better to stand in line for one that is well
	}
	if f.n == 0 || f.rank == failedBefore && x.waited < x.pause() {
		return nil
	}
	if x.desperate = f.rank >= shunned; f.rank == shunned {
		x.decide(fleet.AllEjected)
	}
	if f.n == 1 || f.rank == due {
		return f.two[0]
	}
	switch x.route.policy {
	case fleet.RoundRobin:
		return x.inTurn(&f, now)
	case fleet.Hash:
		if x.key != 0 {
			return x.keyed(&f, now)
		}
	case fleet.LeastRequest:
		return warmer(lessWork(f.two), f.two, now)
	}
	if f.nears > 0 && f.nears < f.n {
		return f.nearest(now)
	}
	return warmer(sooner(f.two, now), f.two, now)
}

// draw puts the nth of many (from 0) among two, so that each of the many has the same chance to be there.
func draw(two *[2]*place, n int, pl *place) {
	if i := mrand.IntN(n + 1); n < 2 {
		two[n] = pl
	} else if i < 2 {
		two[i] = pl
	}
}

// How much less a wait elsewhere must be than one on this node, to be worth the way, which costs both
// nodes: where the place here has work, and where it has none and was just slow.
const (
	spillBusy = 0.5
	spillIdle = 0.1
)

// nearest is one of this node's places, unless one elsewhere is clearly the better one.
func (f *field) nearest(now int64) *place {
	here := f.near[0]
	if f.nears > 1 {
		here = warmer(sooner(f.near, now), f.near, now)
	}
	limit := spillIdle * here.score(now)
	if here.busy.all() > 0 {
		limit = spillBusy * here.score(now)
	}
	for _, pl := range f.two {
		if pl.via != nil && pl.score(now) < limit && !pl.coldBeside(here, now) {
			return pl
		}
	}
	return here
}

// only is the one place that there is, if it can be asked.
func (x *exchange) only(pl *place) *place {
	if !pl.reachable() {
		return nil
	}
	x.desperate = true
	if x.full = pl.busy.working() >= pl.most(); x.full {
		x.decide(fleet.PassedFull)
		return nil
	}
	return pl
}

// survey finds the field.
func (x *exchange) survey(now int64) (f field) {
	f.rank = unusable
	for _, pl := range x.route.places {
		r := x.rank(pl, now)
		if r > f.rank || r == unusable {
			continue
		}
		if r < f.rank {
			f = field{rank: r}
		}
		draw(&f.two, f.n, pl)
		f.n++
		if pl.local() {
			draw(&f.near, f.nears, pl)
			f.nears++
		}
		f.work += pl.busy.working()
	}
	return f
}

func (x *exchange) rank(pl *place, now int64) int {
	if !pl.reachable() {
		return unusable
	}
	if pl.busy.working() >= pl.most() {
		x.full = true
		x.decide(fleet.PassedFull)
		return unusable
	}
	if x.tries > 0 && slices.Contains(x.avoid[:], pl.endpoint) {
		return failedBefore
	}
	return x.standing(pl, now)
}

// standing is the rank that a place has for everybody.
func (x *exchange) standing(pl *place, now int64) int {
	until, paused := pl.until.Load(), pl.paused.Load()
	switch {
	case pl.via != nil && pl.via.unwell():
		x.decide(fleet.PassedEjected)
		return shunned
	case until == 0 && paused == 0 && !pl.unhealthy:
		return promising
	case pl.unhealthy:
		x.decide(fleet.PassedUnhealthy)
		return shunned
	case paused > now:
		x.decide(fleet.PassedPaused)
		return shunned
	case until > now || until != 0 && pl.trying.Load():
		x.decide(fleet.PassedEjected)
		return shunned
	case until != 0:
		return due
	}
	return promising
}

// sooner is one of two by chance, unless the other is clearly the better one by expected wait.
// (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001.)
func sooner(two [2]*place, now int64) int {
	i := mrand.IntN(2)
	if two[1-i].score(now) < 0.8*two[i].score(now) {
		return 1 - i
	}
	return i
}

func lessWork(two [2]*place) int {
	i := mrand.IntN(2)
	if two[1-i].busy.all() < two[i].busy.all() {
		return 1 - i
	}
	return i
}

// warmer is the i-th of two, unless it is so much newer than the other that it is passed over this time.
func warmer(i int, two [2]*place, now int64) *place {
	if two[i].coldBeside(two[1-i], now) {
		i = 1 - i
	}
	return two[i]
}

// A new place gets a tenth of its share at first, and the whole after rampTime: caches are cold and code
// is not compiled yet.
const (
	rampTime  = 10 * time.Second
	rampFloor = 0.1
)

// coldBeside reports whether a place is passed over this time for another one, because it is new.
func (e *endpoint) coldBeside(other *place, now int64) bool {
	warmth := e.warmth(now)
	return warmth < 1 && mrand.Float64() > warmth/other.warmth(now)
}

func (e *endpoint) warmth(now int64) float64 {
	return min(max(rampFloor, float64(now-e.since.Load())/float64(rampTime)), 1)
}

// inTurn is the next of the field, in the order of the places; the one after it, where that one is cold.
func (x *exchange) inTurn(f *field, now int64) *place {
	turn := int(x.route.load.turns.Add(1) % uint32(f.n))
	pl := x.nth(f, turn, now)
	if next := x.nth(f, (turn+1)%f.n, now); pl.coldBeside(next, now) {
		return next
	}
	return pl
}

func (x *exchange) nth(f *field, n int, now int64) *place {
	for _, pl := range x.route.places {
		if x.rank(pl, now) != f.rank {
			continue
		}
		if n == 0 {
			return pl
		}
		n--
	}
	return f.two[0] // ranks have changed meanwhile
}
