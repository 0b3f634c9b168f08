package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/wire/h2"
)

// peer is the way to the proxy of another process: few connections, kept for as long as the table has a
// place there, on which the calls of all services go side by side. Its loss is shared: all places behind
// it count as ejected at once, and it is dialed, not they, until it is back.
type peer struct {
	p    *Proxy
	node string
	in   *table // the last one that has a place there; guarded by p.mu

	calls http2Link
	bulk  http2Link // large bodies and tunnels, which would make small calls wait for the socket

	lost    atomic.Bool  // the last attempt to get there failed, or a connection broke
	silent  atomic.Int32 // connections that have not answered for a moment
	retired atomic.Bool  // no place is there any more

	mu       sync.Mutex // guards all below
	dialing  map[*http2Link]*attempted
	reviving bool
}

// attempted is a connection being opened. All who want one wait for the same.
type attempted struct {
	done chan struct{}
	err  error // valid once done is closed
}

// Liveness of connections between peers, and how a lost peer is sought.
const (
	peerDial    = 3 * time.Second // to connect, shake hands and hear SETTINGS
	peerSilence = time.Second     // without a sign of life, after which a PING asks for one; as long again ends the connection
	reviveFirst = 250 * time.Millisecond
	reviveLast  = 4 * time.Second
	peerStreams = 1000 // on one connection
)

var errSettings = errors.New("it closed the connection before it spoke HTTP/2")

func (p *Proxy) peerLocked(node string) *peer {
	v := p.peers[node]
	if v == nil {
		v = &peer{p: p, node: node, dialing: map[*http2Link]*attempted{}}
		v.calls.via, v.bulk.via = v, v
		v.calls.conns.Store(new([]*h2.Conn))
		v.bulk.conns.Store(new([]*h2.Conn))
		p.peers[node] = v
	}
	v.retired.Store(false)
	return v
}

// joinLocked finds the process through which pl is reached, if it is another one.
func (p *Proxy) joinLocked(pl *place) {
	if pl.address == "" && pl.builtin == nil && !pl.local() && p.cfg.Peer != nil {
		pl.via = p.peerLocked(pl.node)
	}
}

// retirePeersLocked lets the connections to processes where t has no place end with their streams.
func (p *Proxy) retirePeersLocked(t *table) {
	for node, v := range p.peers {
		if v.in != t {
			delete(p.peers, node)
			v.retired.Store(true)
			v.each((*h2.Conn).Shutdown)
		}
	}
}

// each calls f for every connection to the peer.
func (v *peer) each(f func(*h2.Conn)) {
	for _, l := range []*http2Link{&v.calls, &v.bulk} {
		for _, c := range *l.conns.Load() {
			f(c)
		}
	}
}

// unwell: calls go elsewhere, where there is another place.
func (v *peer) unwell() bool { return v.lost.Load() || v.silent.Load() > 0 }

// reach is connect for an exchange.
func (v *peer) reach(ctx context.Context, x *exchange, l *http2Link) outcome {
	err := v.connect(ctx, l)
	switch {
	case err == nil:
		return outcome{}
	case ctx.Err() != nil:
		return x.outOfTime(ctx)
	}
	return unreachable(err)
}

// connect waits for a connection that takes a stream of l.
func (v *peer) connect(ctx context.Context, l *http2Link) error {
	v.mu.Lock()
	if l.available() {
		v.mu.Unlock()
		return nil
	}
	a := v.dialing[l]
	if a == nil {
		a = &attempted{done: make(chan struct{})}
		v.dialing[l] = a
		go v.open(l, a)
	}
	v.mu.Unlock()
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// open opens a connection for l, and tells all who wait for it.
func (v *peer) open(l *http2Link, a *attempted) {
	ctx, cancel := context.WithTimeout(v.p.ctx, peerDial)
	defer cancel()
	c, err := v.dial(ctx, l)
	v.mu.Lock()
	if err == nil {
		l.add(c)
		if v.retired.Load() {
			c.Shutdown()
		}
	}
	delete(v.dialing, l)
	a.err = err
	v.mu.Unlock()
	close(a.done)
	if err != nil {
		v.failed()
		return
	}
	v.found()
}

func (v *peer) dial(ctx context.Context, l *http2Link) (*h2.Conn, error) {
	nc, err := v.p.cfg.Peer(ctx, v.node)
	if err != nil {
		return nil, err
	}
	c := h2.NewClient(nc, v.p.peerConfig(&v.silent))
	go v.run(l, c)
	select {
	case <-c.Settled():
		return c, nil
	case <-c.Done():
		return nil, errors.Join(c.Err(), errSettings)
	case <-ctx.Done():
		c.Close()
		return nil, fmt.Errorf("no HTTP/2 settings came in %v", peerDial)
	}
}

// run serves a connection until it ends. One that breaks takes the peer's places out.
func (v *peer) run(l *http2Link, c *h2.Conn) {
	err := c.Run(v.p.ctx, nil)
	l.remove(c)
	if err != nil {
		v.failed()
	}
}

// peerConfig are the limits of connections between peers. silent counts those that are suspected to be
// dead; nil: nobody asks.
func (p *Proxy) peerConfig(silent *atomic.Int32) h2.Config {
	c := h2.Config{
		MaxHeaderList: uint32(2 * p.cfg.MaxHead), MaxFields: 2 * p.cfg.MaxFields, HeadTime: p.cfg.HeadTime, MaxStreams: peerStreams, Silence: peerSilence,
		ExtendedConnect: true, ConnWindow: 8 << 20, StreamWindow: 256 << 10, HeaderTable: 64 << 10, MaxResets: 100_000, MaxControl: 100_000,
	}
	if silent != nil {
		c.Suspect = func(on bool) {
			if on {
				silent.Add(1)
				return
			}
			silent.Add(-1)
		}
	}
	return c
}

// found notes that the peer is there again. What its places did not answer while it was not says nothing
// about them.
func (v *peer) found() {
	if !v.lost.Swap(false) {
		return
	}
	for _, s := range v.p.table.Load().services {
		for _, pl := range s.places {
			if pl.via == v {
				pl.afresh()
				pl.forget()
			}
		}
	}
	v.p.wake()
}

// failed notes that the peer cannot be reached, and sees to it that it is sought.
func (v *peer) failed() {
	v.lost.Store(true)
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.reviving {
		v.reviving = true
		go v.revive()
	}
}

// revive dials a lost peer until it answers: one real probe at a time, whoever calls.
func (v *peer) revive() {
	defer func() {
		v.mu.Lock()
		v.reviving = false
		v.mu.Unlock()
		if v.lost.Load() && !v.retired.Load() && v.p.ctx.Err() == nil {
			v.failed() // lost again since the last look
		}
	}()
	for wait := reviveFirst; v.lost.Load() && !v.retired.Load(); wait = min(2*wait, reviveLast) {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-v.p.ctx.Done():
			timer.Stop()
			return
		}
		if v.lost.Load() && v.connect(v.p.ctx, &v.calls) == nil {
			v.found()
		}
	}
}

// endPeers closes all connections to peers and waits for their goroutines.
func (p *Proxy) endPeers() {
	p.mu.Lock()
	all := slices.Collect(maps.Values(p.peers))
	p.mu.Unlock()
	for _, v := range all {
		v.each(func(c *h2.Conn) {
			c.Close()
			<-c.Done()
		})
	}
}
