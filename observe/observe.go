// Package observe records what the data path sees: totals and latencies per edge, and the last
// calls one by one, and gives them out as Prometheus metrics, as records and as a live tap.
//
// It stands at the end of two walks: proxy finishes every call here ([Edge.Done], then
// [Recorder.Record]) and the broker reports its deliveries here. It decides nothing.
//
// Writers never wait. Counters are atomic and striped by processor; a record goes into a ring slot
// that a reader cannot hold against a writer, who takes the next one instead. In steady state
// neither allocates. All methods of [Recorder] and [Edge] are safe for concurrent use; only
// [Recorder.Edge] takes a lock, and it is meant for the time when a snapshot is compiled.
package observe

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/shoalrun/shoal/fleet"
)

// DefaultRing is how many records of each kind are kept where [Config] does not say.
const DefaultRing = 16384

// Config of a [Recorder]. The zero value works.
type Config struct {
	// Ring is the number of records kept; 0 means [DefaultRing]. A quarter as many again are kept
	// of failures alone, so that a refused call can still be explained after a busy second. A
	// record takes about 600 bytes, once its place in the ring was used.
	Ring int
	// Broker tells of topics and subscriptions, for the metrics; nil where there is none.
	Broker func() fleet.BrokerStatus
}

// Recorder holds the edges, the records and the taps of one process.
type Recorder struct {
	Spans  Tally // spans, by an exporter
	Access Tally // access records, by an access log

	broker  *brokered // nil where there is none
	stripes *stripes
	all     *ring // what succeeded
	failed  *ring // what was refused or failed: not washed away by what succeeds

	taps    atomic.Pointer[[]*tap] // nil without taps
	learned learnedSet
	missed  atomic.Uint64 // observations that a tap's reader was too slow for

	mu      sync.RWMutex // guards edges and mirrors
	edges   map[edgeKey]*Edge
	mirrors map[mirrorKey]*Mirror
}

// maxEdges bounds the memory, and what Prometheus has to keep: 64 services that each call all others fit. What
// comes after them is counted together, as calls of `others` to `others`.
const maxEdges, others = 4096, "others"

type edgeKey struct {
	from, to, route string
	protocol        fleet.Protocol
}

// New returns an empty recorder.
func New(c Config) *Recorder {
	size := c.Ring
	if size <= 0 {
		size = DefaultRing
	}
	s := newStripes()
	return &Recorder{
		broker:  newBrokered(c.Broker),
		stripes: s,
		all:     newRing(s, size),
		failed:  newRing(s, size/4),
		edges:   map[edgeKey]*Edge{},
		mirrors: map[mirrorKey]*Mirror{},
	}
}

// Edge returns the edge of that caller, callee, route and protocol: always the same one for the
// same arguments. It may lock; resolve edges when a snapshot is compiled and keep them.
func (r *Recorder) Edge(from, to, route string, p fleet.Protocol) *Edge {
	k := edgeKey{from, to, route, p}
	r.mu.RLock()
	e := r.edges[k]
	r.mu.RUnlock()
	if e != nil {
		return e
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.edges) >= maxEdges {
		k = edgeKey{from: others, to: others, route: k.route, protocol: p}
	}
	if e := r.edges[k]; e != nil {
		return e
	}
	e = newEdge(r.stripes, k)
	r.edges[k] = e
	return e
}

// Edges returns the totals of every edge that carried a request, sorted by caller, callee, route
// and protocol.
func (r *Recorder) Edges() []fleet.EdgeStats {
	var stats []fleet.EdgeStats
	for _, e := range r.sorted() {
		if s := e.Stats(); s.Requests > 0 {
			stats = append(stats, s)
		}
	}
	return stats
}

func (r *Recorder) sorted() []*Edge {
	r.mu.RLock()
	edges := make([]*Edge, 0, len(r.edges))
	for _, e := range r.edges {
		edges = append(edges, e)
	}
	r.mu.RUnlock()
	slices.SortFunc(edges, func(a, b *Edge) int {
		return cmp.Or(
			cmp.Compare(a.key.from, b.key.from),
			cmp.Compare(a.key.to, b.key.to),
			cmp.Compare(a.key.route, b.key.route),
			cmp.Compare(a.key.protocol, b.key.protocol),
		)
	})
	return edges
}
