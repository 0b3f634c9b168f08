package proxy

import (
	"context"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// endpoint is the state of one place that answers for a service. It is kept by instance id, so it
// outlives the snapshots that name it.
type endpoint struct {
	p        *Proxy
	instance string

	dialer   atomic.Pointer[Dialer] // of a local instance that is attached
	draining atomic.Bool
	inflight atomic.Int64
	left     atomic.Pointer[chan struct{}] // told when inflight falls to 0 while draining
	latency  atomic.Uint64                 // EWMA of the time to an answer's head: nanoseconds, a float64's bits
	sampled  atomic.Int64                  // when that was last moved: nanoseconds since p.epoch
	failures atomic.Int32                  // dials that failed, one after the other
	ejected  atomic.Int64                  // until then: nanoseconds since p.epoch

	mu    sync.Mutex // guards pools
	pools []*pool
	h2    http2Upstream
}

// place is an endpoint as one snapshot has it.
type place struct {
	*endpoint
	service string
	node    string
	via     *peer  // the process of that node, where it is another one
	address string // HOST:PORT outside Shoal
	builtin func(net.Conn)
	state   fleet.EndpointState

	introductions atomic.Pointer[[]introduction] // to via
}

// reachable reports whether a dial makes sense now.
func (pl *place) reachable() bool {
	switch {
	case pl.state != fleet.Serving || pl.draining.Load():
		return false
	case pl.address != "" || pl.builtin != nil:
		return true
	case pl.local():
		return pl.dialer.Load() != nil
	}
	return pl.via != nil
}

func (pl *place) local() bool { return pl.node == pl.p.cfg.Node && pl.node != "" }

// peer reports whether the way there leads through another process's proxy.
func (pl *place) peer() bool { return pl.via != nil }

// Ejections after a failed dial: brief, and doubled up to a limit.
const (
	ejectFirst = 250 * time.Millisecond
	ejectLast  = 8 * time.Second
)

func (e *endpoint) dialFailed() {
	n := min(e.failures.Add(1), 6)
	e.ejected.Store(e.p.now() + int64(min(ejectFirst<<(n-1), ejectLast)))
}

func (e *endpoint) dialWorked() {
	if e.failures.Load() != 0 {
		e.failures.Store(0)
		e.ejected.Store(0)
	}
}

// score is what balancing compares: the expected wait. An average that nothing refreshes fades, so that
// a place that was slow once is asked again.
func (e *endpoint) score(now int64) float64 {
	l := math.Float64frombits(e.latency.Load())
	l /= 1 + float64(now-e.sampled.Load())/float64(fadeTime)
	return (l + float64(latencyFloor)) * float64(e.inflight.Load()+1)
}

const (
	fadeTime     = 2 * time.Second
	latencyFloor = time.Millisecond // differences far below it say nothing about a place
)

// answered moves the average a tenth of the way. Two that do so at once may lose one sample.
func (e *endpoint) answered(after time.Duration, at time.Time) {
	l := math.Float64frombits(e.latency.Load())
	e.latency.Store(math.Float64bits(l + (float64(after)-l)/10))
	e.sampled.Store(int64(at.Sub(e.p.epoch)))
}

// enter counts an exchange in; false where the endpoint drains, so that [Proxy.Drain] misses none.
func (e *endpoint) enter() bool {
	e.inflight.Add(1)
	if !e.draining.Load() {
		return true
	}
	e.leave()
	return false
}

func (e *endpoint) leave() {
	if e.inflight.Add(-1) > 0 || !e.draining.Load() {
		return
	}
	if c := e.left.Load(); c != nil {
		select {
		case *c <- struct{}{}:
		default:
		}
	}
}

// dial opens a new connection to a place that no other process stands before.
func (pl *place) dial(ctx context.Context, port uint16, caller string) (net.Conn, error) {
	switch {
	case pl.builtin != nil:
		return pl.dialBuiltin(caller)
	case pl.address != "":
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, "tcp", pl.address)
	}
	d := pl.dialer.Load()
	if d == nil {
		return nil, errDetached
	}
	c, err := (*d).Dial(ctx, port)
	if err != nil {
		return nil, err // not c: a nil *TCPConn in an interface
	}
	return c, nil
}

// pool returns the kept-alive connections to one port; those to a builtin name their caller.
func (pl *place) pool(port uint16, caller string) *pool {
	if pl.builtin == nil {
		caller = ""
	}
	e := pl.endpoint
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.pools {
		if p.port == port && p.caller == caller && p.address == pl.address {
			return p
		}
	}
	p := &pool{endpoint: e, port: port, caller: caller, address: pl.address}
	e.pools = append(e.pools, p)
	return p
}

// closeIdle closes the kept-alive connections; those in use are closed when their exchange ends, if
// the endpoint drains.
func (e *endpoint) closeIdle(before time.Time) {
	e.mu.Lock()
	pools := e.pools
	e.mu.Unlock()
	for _, p := range pools {
		p.prune(before)
	}
}
