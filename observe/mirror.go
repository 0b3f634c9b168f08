package observe

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Mirror counts what became of the copies that one route sends to one service. Its counters may be
// added to concurrently.
type Mirror struct {
	key        mirrorKey
	Same       atomic.Uint64 // answered as the original was
	Different  atomic.Uint64 // answered otherwise
	Unanswered atomic.Uint64 // refused, or without an answer
	Sent       atomic.Uint64 // answered, and not compared
	Dropped    atomic.Uint64 // not sent: too many were on their way
	Skipped    atomic.Uint64 // not sent: the request was too large, or a stream
}

type mirrorKey struct{ service, route, to string }

// Mirror returns the counters of the copies that a route of a service sends to another one: always the
// same ones for the same arguments. It may lock, as [Recorder.Edge] may.
func (r *Recorder) Mirror(service, route, to string) *Mirror {
	k := mirrorKey{service, route, to}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.mirrors[k]
	if m == nil {
		m = &Mirror{key: k}
		r.mirrors[k] = m
	}
	return m
}

func (r *Recorder) sortedMirrors() []*Mirror {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]*Mirror, 0, len(r.mirrors))
	for _, m := range r.mirrors {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *Mirror) int {
		return cmp.Or(cmp.Compare(a.key.service, b.key.service), cmp.Compare(a.key.route, b.key.route), cmp.Compare(a.key.to, b.key.to))
	})
	return all
}

// mirrored is the metric of copies.
func mirrored() *prometheus.Desc {
	return prometheus.NewDesc("shoal_mirrored_total",
		"Copies of calls that a route mirrors, by what became of them: same, different, unanswered, sent (not compared), dropped (too many on their way), skipped (too large).",
		[]string{"callee", "route", "to", "result"}, nil)
}

// collectMirrors counts the copies of every mirror.
func (c *collector) collectMirrors(count func(d *prometheus.Desc, n uint64, labels ...string)) {
	for _, m := range c.r.sortedMirrors() {
		for _, result := range []struct {
			name string
			n    *atomic.Uint64
		}{{"same", &m.Same}, {"different", &m.Different}, {"unanswered", &m.Unanswered}, {"sent", &m.Sent}, {"dropped", &m.Dropped}, {"skipped", &m.Skipped}} {
			count(c.mirrored, result.n.Load(), m.key.service, m.key.route, m.key.to, result.name)
		}
	}
}
