package proxy

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/shoalrun/shoal/wire/h2"
)

// Parked returns how many connections wait without a goroutine.
func Parked(p *Proxy) int { return p.parking.now() }

// ServeCaptured is ServeCapture for connections whose original destinations a test makes up: real ones
// take a network namespace, which the tests of sidecar have.
func ServeCaptured(ctx context.Context, p *Proxy, l net.Listener, src Source, original func(net.Conn) (netip.AddrPort, error)) error {
	return p.serve(ctx, l, &listener{source: src, aim: aimCapture, original: original})
}

// Flows returns the parts that callers have of a rate, as funcs that take one call at a time of the
// test's own making.
func Flows(perSecond float64, burst int, callers ...string) map[string]func(now time.Duration) bool {
	r := newRate(perSecond, burst, 0)
	all := map[string]func(time.Duration) bool{}
	for _, c := range callers {
		f := r.of(c)
		all[c] = func(now time.Duration) bool { _, ok := f.take(int64(now)); return ok }
	}
	return all
}

// PeerStreams returns how many streams are open to other processes.
func PeerStreams(p *Proxy) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, v := range p.peers {
		v.each(func(c *h2.Conn) { n += c.Streams() })
	}
	return n
}

// PeerLost reports whether a node is known not to be reached.
func PeerLost(p *Proxy, node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.peers[node]
	return v != nil && v.lost.Load()
}

// Chooser returns a func that chooses among the places of a service as a call that comes after began has, with
// a clock of the test's own: began is when the named instance began to take calls; the others did long before.
func Chooser(p *Proxy, caller, service, instance string) func(after time.Duration) string {
	t := p.table.Load()
	const began = int64(time.Hour)
	for _, pl := range t.services[service].places {
		pl.since.Store(0)
		if pl.instance == instance {
			pl.since.Store(began)
		}
	}
	return func(after time.Duration) string {
		x := &exchange{}
		x.begin(p, Source{Service: caller}, nil)
		x.route = t.route(caller, target{host: service})
		return x.chooseAt(began + int64(after)).instance
	}
}

// RateNode is a node's part of a rate, for tests that have time and messages in their own hands.
type RateNode struct{ r *rate }

// NewRateNode returns a part.
func NewRateNode(perSecond float64, burst int) RateNode {
	return RateNode{newRate(perSecond, burst, 0)}
}

// Take takes a call of caller.
func (n RateNode) Take(caller string, now time.Duration) bool {
	_, ok := n.r.of(caller).take(int64(now))
	return ok
}

// Short, Give and Receive are what the node does for others.
func (n RateNode) Short(now time.Duration) bool { return n.r.wasShort(int64(now)) }
func (n RateNode) Give(now time.Duration) int64 { return n.r.give(int64(now)) }
func (n RateNode) Receive(tokens int64)         { n.r.receive(tokens) }
