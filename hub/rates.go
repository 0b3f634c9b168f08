package hub

import (
	"slices"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// rates moves parts of rates between nodes. A node that is short has the others asked, and what they give up it is
// granted, or divided among all that are short. Nothing is kept, and what cannot be delivered at once is lost: it was
// given up, so that no more than the rate is let through, whatever fails.
type rates struct {
	mu    sync.Mutex // guards what follows
	to    map[string]chan fleet.RateMove
	short map[string]map[string]time.Time // by service and node: when that was last said
}

// shortFor is how long a node counts as short of a rate after it said so: a bit more than the time between two looks.
const shortFor = 300 * time.Millisecond

// waitingMoves is how many messages may wait for a node whose stream is busy.
const waitingMoves = 64

func newRates() *rates {
	return &rates{to: map[string]chan fleet.RateMove{}, short: map[string]map[string]time.Time{}}
}

// join returns what is for a node, until leave is called.
func (r *rates) join(node string) (moves <-chan fleet.RateMove, leave func()) {
	c := make(chan fleet.RateMove, waitingMoves)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to[node] = c
	return c, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.to[node] == c { // and not a newer connection's
			delete(r.to, node)
		}
	}
}

// heard takes what a node says.
func (r *rates) heard(node string, m fleet.RateMove, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, service := range m.Short {
		if r.short[service] == nil {
			r.short[service] = map[string]time.Time{}
		}
		r.short[service][node] = now
	}
	if len(m.Short) > 0 {
		for other := range r.to {
			r.sendLocked(other, fleet.RateMove{Ask: slices.DeleteFunc(slices.Clone(m.Short), func(s string) bool { return r.isShortLocked(other, s, now) })})
		}
	}
	for service, calls := range m.Give {
		r.grantLocked(service, calls, now)
	}
}

func (r *rates) isShortLocked(node, service string, now time.Time) bool {
	return now.Sub(r.short[service][node]) < shortFor
}

// grantLocked divides calls equally.
func (r *rates) grantLocked(service string, calls float64, now time.Time) {
	var who []string
	for node := range r.short[service] {
		if _, there := r.to[node]; there && r.isShortLocked(node, service, now) {
			who = append(who, node)
			continue
		}
		delete(r.short[service], node)
	}
	for _, node := range who {
		r.sendLocked(node, fleet.RateMove{Grant: map[string]float64{service: calls / float64(len(who))}})
	}
}

func (r *rates) sendLocked(node string, m fleet.RateMove) {
	if len(m.Ask) == 0 && len(m.Grant) == 0 {
		return
	}
	select {
	case r.to[node] <- m:
	default: // it does not listen now
	}
}
