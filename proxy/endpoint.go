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
	busy     busy
	left     atomic.Pointer[chan struct{}] // told when nothing is in progress while draining

	latency
	outlier
	limiter limiter
	since   atomic.Int64  // when it began to take calls: nanoseconds since p.epoch
	serving bool          // in the last table; guarded by p.mu
	in      *table        // the last one that has a place here; guarded by p.mu
	newer   atomic.Uint32 // the port on which it speaks HTTP/2 only; 0: none that is known

	mu    sync.Mutex // guards pools
	pools []*pool
	h2    http2Upstream
}

// place is an endpoint as one snapshot has it.
type place struct {
	*endpoint
	service   string
	node      string
	via       *peer  // the process of that node, where it is another one
	address   string // HOST:PORT outside Shoal
	builtin   func(net.Conn)
	state     fleet.EndpointState
	unhealthy bool   // does not answer its health checks
	limit     int64  // of exchanges that it may work on; 0: the limiter's
	seed      uint64 // of its weights for keys

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

// noLimit is for what Shoal does not watch over: the broker, and what is outside the fleet.
const noLimit = math.MaxInt64

// most is how many exchanges the place may work on.
func (pl *place) most() int64 {
	if pl.limit != 0 {
		return pl.limit
	}
	return pl.limiter.limit.Load()
}

// score is what balancing compares: the expected wait.
func (pl *place) score(now int64) float64 {
	return pl.expected(now) * float64(pl.busy.all()+1)
}

// enter counts an exchange in; false where the endpoint drains, so that [Proxy.Drain] misses none.
func (pl *place) enter() bool {
	if working := pl.busy.enter(); !pl.draining.Load() && working <= pl.most() {
		return true
	}
	pl.leave(true)
	return false
}

// leave counts one out. working says that it did not rest.
func (e *endpoint) leave(working bool) {
	if e.busy.leave(working) > 0 || !e.draining.Load() {
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
