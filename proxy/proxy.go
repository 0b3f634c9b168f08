// Package proxy is the data path of one process: it captures, authorizes, balances, forwards and
// records every call that its services make and get.
//
// It is the middle of the walk of a call: app -> sidecar -> proxy -> app, whose stages stand in order
// in exchange.call. Both halves, the caller's and the callee's, run in one pass where the instance is
// local. Deliveries of events walk the same way, by [Proxy.Transport]. A change reaches it as a
// whole snapshot, by [Proxy.Install].
//
// A connection with a request in progress has one goroutine; one without, after a few seconds, has
// none and no buffer. An exchange reads one table, loaded once. All methods of [Proxy] are safe for
// concurrent use.
package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// Config of a [Proxy]. A zero field means what its comment says.
type Config struct {
	Node     string            // this node's name, as in fleet.Endpoint.Node; empty in the hub
	Ranges   fleet.Ranges      // zero: fleet.DefaultRanges
	Recorder *observe.Recorder // nil: one of its own, which nobody reads
	Sampler  *observe.Sampler  // of the traces that begin here; nil: all are sampled

	// Builtin serves the names that this process hosts itself (the hub: events, pubsub). Each
	// function owns the connection that it is given, which has a method Caller() string. It may
	// block; it is called in a goroutine of its own. nil: none.
	Builtin map[string]func(net.Conn)
	// HubServices are the names that the peer "hub" hosts: events and pubsub, in a node.
	HubServices []string
	// Peer connects to the peer listener of another process: a node by its name, or "hub". What leaves
	// the machine is one of TLS that has proved the other end to be that one (mesh.Net). nil: no peers.
	Peer func(ctx context.Context, node string) (net.Conn, error)
	// NameOf tells the external name behind a virtual address of Ranges.Names. nil: none.
	NameOf func(netip.Addr) (string, bool)

	MaxHead     int           // bytes of a request or response head; 0: 64 KB
	MaxFields   int           // fields of a head; 0: 256
	MaxStreams  int           // open streams of one HTTP/2 connection; 0: 250
	MaxResets   int           // streams that one HTTP/2 connection may reset in a second; 0: 1000
	MaxControl  int           // PING, SETTINGS, PRIORITY, empty and unknown frames of one HTTP/2 connection in a second; 0: 1000
	HeadTime    time.Duration // in which a request's head must come; 0: 1 min
	MaxReplay   int           // bytes of a request body that are kept for a retry; 0: 64 KB
	MaxInFlight int           // exchanges in progress to one service from this process; 0: 10,000
	Timeout     time.Duration // of an http call that declares none; 0: 60 s
	Idle        time.Duration // of silence on a streamed answer or a kept connection; 0: 5 min
	Park        time.Duration // without a request, after which a connection gives its goroutine back; 0: 3 s
	Patience    time.Duration // for which an external address that refuses connections is tried; 0: 5 s
	Line        time.Duration // for which a call stands in line while its callee has no room; 0: 1 s
	Grace       time.Duration // for which exchanges may go on once Run's context has ended; 0: 10 s
}

// crowd is how many connections leave enough behind, in goroutines and what Go keeps per connection, to be parked
// soon, and for that to be worth a collection.
const crowd = 1000

// hubNode is the name of the hub where a node's stands.
const hubNode = "hub"

func (c Config) withDefaults() Config {
	if c.Ranges == (fleet.Ranges{}) {
		c.Ranges = fleet.DefaultRanges()
	}
	if c.Recorder == nil {
		c.Recorder = observe.New(observe.Config{})
	}
	setInt(&c.MaxHead, 64<<10)
	setInt(&c.MaxFields, 256)
	setInt(&c.MaxStreams, 250)
	setInt(&c.MaxResets, 1000)
	setInt(&c.MaxControl, 1000)
	setDuration(&c.HeadTime, time.Minute)
	setInt(&c.MaxReplay, 64<<10)
	setInt(&c.MaxInFlight, 10_000)
	setDuration(&c.Timeout, time.Minute)
	setDuration(&c.Idle, 5*time.Minute)
	setDuration(&c.Park, 3*time.Second)
	setDuration(&c.Patience, 5*time.Second)
	setDuration(&c.Line, time.Second)
	setDuration(&c.Grace, 10*time.Second)
	return c
}

func setInt(v *int, d int) {
	if *v == 0 {
		*v = d
	}
}

func setDuration(v *time.Duration, d time.Duration) {
	if *v == 0 {
		*v = d
	}
}

// Source says who calls. An empty Instance stands for the service as such.
type Source struct{ Service, Instance string }

// Dialer connects to a port of a local instance, wherever its namespace is.
type Dialer interface {
	Dial(ctx context.Context, port uint16) (*net.TCPConn, error)
}

// Proxy is the data path of one process.
type Proxy struct {
	cfg   Config
	epoch time.Time
	table atomic.Pointer[table]
	watch *watcher

	brokers []*service // that every table has

	stopping atomic.Bool   // nothing idle is kept
	crowded  atomic.Bool   // more connections than crowd are in progress
	copies   chan struct{} // held by each copy on its way

	ctx    context.Context // of everything that no single connection owns
	cancel context.CancelFunc

	mu        sync.Mutex // guards all below, and the compiling of tables
	quiet     *sync.Cond // on mu: alive fell to 0, or patience ended
	alive     int        // connections in progress
	stopped   bool
	closed    bool // every connection was closed, and one that comes yet is, too
	endpoints map[string]*endpoint
	loads     map[string]*load
	listeners map[*listener]struct{}
	callers   map[string]*callerTransport
	peers     map[string]*peer
	changed   chan struct{} // closed, and made anew, when a table or a dialer changes
	parking   parking
}

// What ends a wait, or a connection.
var (
	errAgain    = errors.New("nothing to read yet")
	errGone     = errors.New("the caller left")
	errTimeout  = errors.New("the deadline passed")
	errSilent   = errors.New("the caller was silent for too long")
	errDetached = errors.New("no process is attached")
	errRefused  = errors.New("refused")
)

// New returns a proxy with an empty table. Run must be called for it to notice callers that leave.
func New(c Config) (*Proxy, error) {
	w, err := newWatcher()
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		cfg: c.withDefaults(), epoch: time.Now(), watch: w,
		endpoints: map[string]*endpoint{}, loads: map[string]*load{}, listeners: map[*listener]struct{}{},
		callers: map[string]*callerTransport{}, peers: map[string]*peer{}, copies: make(chan struct{}, maxCopies),
		changed: make(chan struct{}), parking: newParking(),
	}
	p.quiet = sync.NewCond(&p.mu)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.Lock()
	p.brokers = p.brokersLocked()
	p.mu.Unlock()
	p.table.Store(&table{p: p, routes: &routes{}})
	p.Install(&fleet.Snapshot{})
	return p, nil
}

// Run watches connections until ctx ends, gives the exchanges in progress Config.Grace to end, and
// closes what is left. The Serve methods should have returned by then.
func (p *Proxy) Run(ctx context.Context) error {
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		_ = p.watch.run() // ends when it is closed, below
	}()
	p.tidy(ctx)
	p.stop()
	p.settle(p.cfg.Grace)
	p.refuse()
	p.cancel()
	p.closeAll()
	p.settle(p.cfg.Grace)
	p.watch.close()
	<-watching
	return nil
}

// tidy closes what has been idle for long, until ctx ends, and gives memory back once many connections
// have been parked: what they had is garbage then, but nothing may come for minutes that makes Go collect it.
func (p *Proxy) tidy(ctx context.Context) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	var calm <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.parking.crowds:
			calm = time.After(p.cfg.Park)
		case <-calm:
			debug.FreeOSMemory()
		case now := <-tick.C:
			p.parking.prune(p, now.Add(-p.cfg.Idle))
			for _, e := range p.known() {
				e.closeIdle(now.Add(-keepIdle))
			}
		}
	}
}

// stop lets idle connections end, and the others after their exchange. What was accepted is served:
// whoever connected has no way to know that it was too late.
func (p *Proxy) stop() {
	p.stopping.Store(true)
	for _, l := range p.serving() {
		l.release()
	}
	for _, e := range p.known() {
		e.closeIdle(time.Now().Add(time.Hour))
	}
}

// refuse closes what is accepted from now on.
func (p *Proxy) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
}

// settle waits for the connections in progress, and for the listeners, for at most limit.
func (p *Proxy) settle(limit time.Duration) {
	expired := false
	timer := time.AfterFunc(limit, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		expired = true
		p.quiet.Broadcast()
	})
	defer timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.alive > 0 && !expired {
		p.quiet.Wait()
	}
}

// enter counts a connection in; false once the proxy stops.
func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return false
	}
	p.alive++
	p.crowded.Store(p.alive > crowd)
	return true
}

func (p *Proxy) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alive--
	p.crowded.Store(p.alive > crowd)
	if p.alive == 0 {
		p.quiet.Broadcast()
	}
}

func (p *Proxy) closeAll() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	for _, l := range p.serving() {
		l.closeAll()
	}
	p.parking.prune(p, time.Now().Add(time.Hour))
	for _, e := range p.known() {
		e.closeIdle(time.Now().Add(time.Hour))
		e.endHTTP2()
	}
	p.endPeers()
}

// know has closeAll reach l; over says that it has been called already.
func (p *Proxy) know(l *listener) (over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners[l] = struct{}{}
	return p.closed
}

func (p *Proxy) forget(l *listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.listeners, l)
}

func (p *Proxy) serving() []*listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*listener
	for l := range p.listeners {
		all = append(all, l)
	}
	return all
}

func (p *Proxy) known() []*endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*endpoint
	for _, e := range p.endpoints {
		all = append(all, e)
	}
	return all
}

// now is the time since the proxy's epoch, in nanoseconds: what atomics can hold.
func (p *Proxy) now() int64 { return int64(time.Since(p.epoch)) }

// changes is closed at the next change of the table or of what is attached.
func (p *Proxy) changes() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *Proxy) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}
