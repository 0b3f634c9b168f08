package observe

import (
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Edge counts the requests from one caller to one callee by one route and protocol.
type Edge struct {
	key     edgeKey
	pick    *stripes
	stripes []atomic.Pointer[counts] // each made when it is first written to
}

// counts is one stripe's share of an edge. The number of requests is the sum of the buckets.
type counts struct {
	buckets [bucketCount]atomic.Uint64
	nanos   atomic.Uint64
	errors  atomic.Uint64
	_       [cacheLine]byte
}

func newEdge(s *stripes, k edgeKey) *Edge {
	return &Edge{key: k, pick: s, stripes: make([]atomic.Pointer[counts], s.n)}
}

// Done counts one finished request. It takes no lock and, after the first requests, allocates
// nothing. A negative duration counts as 0.
func (e *Edge) Done(d time.Duration, failed bool) {
	d = max(d, 0)
	p := &e.stripes[e.pick.pick()]
	c := p.Load()
	if c == nil {
		p.CompareAndSwap(nil, new(counts))
		c = p.Load()
	}
	c.buckets[bucketOf(d)].Add(1)
	c.nanos.Add(uint64(d))
	if failed {
		c.errors.Add(1)
	}
}

// Stats returns the totals since the process started. P50 and P99 are within 3.2 % of the true
// value for what took at least a microsecond, and within 32 ns below that.
func (e *Edge) Stats() fleet.EdgeStats {
	h := e.totals()
	return fleet.EdgeStats{
		From: e.key.from, To: e.key.to, Route: e.key.route, Protocol: e.key.protocol,
		Requests: h.count,
		Errors:   h.errors,
		P50:      h.quantile(0.50),
		P99:      h.quantile(0.99),
	}
}

// totals adds the stripes up. Requests that finish meanwhile are in it or not, each wholly in the
// count and the buckets.
func (e *Edge) totals() *histogram {
	h := new(histogram)
	for i := range e.stripes {
		c := e.stripes[i].Load()
		if c == nil {
			continue
		}
		for b := range c.buckets {
			h.buckets[b] += c.buckets[b].Load()
		}
		h.sum += time.Duration(c.nanos.Load())
		h.errors += c.errors.Load()
	}
	for _, n := range h.buckets {
		h.count += n
	}
	h.errors = min(h.errors, h.count)
	return h
}
