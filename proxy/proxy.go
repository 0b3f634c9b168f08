// Package proxy is the data path of one process: it captures, authorizes, balances, forwards and
// records every call that its services make and get.
//
// It is the middle of the walk of a call: app -> sidecar -> proxy -> app. Both halves, the
// caller's and the callee's, run in one pass where the instance is local. Deliveries of events walk
// the same way, by [Proxy.Transport]. A change reaches it as a whole snapshot, by [Proxy.Install].
//
// All methods of [Proxy] are safe for concurrent use.
package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// Config of a [Proxy]. Recorder is required; zero elsewhere means what the field says.
type Config struct {
	Node     string       // this node's name, as in fleet.Endpoint.Node; empty in the hub
	Ranges   fleet.Ranges // zero: fleet.DefaultRanges
	Recorder *observe.Recorder

	// Builtin serves the names that this process hosts itself (the hub: events, pubsub). Each
	// function owns the connection that it is given, which has a method Caller() string. nil: none.
	Builtin map[string]func(net.Conn)
	// HubServices are the names that Peer(ctx, "hub") hosts, where Builtin does not.
	HubServices []string
	// Peer connects to the peer listener of another process; "hub" is the hub. nil: no peers.
	Peer func(ctx context.Context, node string) (net.Conn, error)
	// NameOf tells the external name behind a virtual address of Ranges.Names. nil: none.
	NameOf func(netip.Addr) (string, bool)

	MaxHead     int           // bytes of a request or response head; 0: 64 KB
	MaxReplay   int           // bytes of a request body that are kept for a retry; 0: 64 KB
	MaxInFlight int           // exchanges in progress to one service from this process; 0: 10,000
	Timeout     time.Duration // of an http call that declares none; 0: 60 s
	Idle        time.Duration // of silence on a stream or a kept connection; 0: 5 min
	Park        time.Duration // without a request, after which a connection gives its goroutine back; 0: 3 s
	Patience    time.Duration // for which an external address that refuses connections is tried; 0: 5 s
	Grace       time.Duration // for which connections may go on once Run's context has ended; 0: 10 s
}

// Source says who calls. An empty Instance stands for the service as such.
type Source struct{ Service, Instance string }

// Dialer connects to a port of a local instance, wherever its namespace is.
type Dialer interface {
	Dial(ctx context.Context, port uint16) (*net.TCPConn, error)
}

// Proxy is the data path of one process.
type Proxy struct{ cfg Config }

var errPending = errors.New("proxy: not assembled")

func New(c Config) (*Proxy, error)                                 { return &Proxy{cfg: c}, nil }
func (p *Proxy) Run(ctx context.Context) error                     { <-ctx.Done(); return nil }
func (p *Proxy) Install(s *fleet.Snapshot)                         {}
func (p *Proxy) Snapshot() *fleet.Snapshot                         { return nil }
func (p *Proxy) Lookup(service, host string) (index uint16, ok bool) { return 0, false }
func (p *Proxy) ServeCapture(ctx context.Context, l *net.TCPListener, src Source) error {
	return errPending
}
func (p *Proxy) ServeNamed(ctx context.Context, l net.Listener, src Source, host string, port uint16) error {
	return errPending
}
func (p *Proxy) ServeForward(ctx context.Context, l net.Listener, src Source) error {
	return errPending
}
func (p *Proxy) ServeEdge(ctx context.Context, l net.Listener, match func(host, path string) (service string, ok bool)) error {
	return errPending
}
func (p *Proxy) ServePeer(ctx context.Context, l net.Listener) error { return errPending }
func (p *Proxy) Attach(instance string, d Dialer)                    {}
func (p *Proxy) Detach(instance string)                              {}
func (p *Proxy) Drain(ctx context.Context, instance string) error    { return errPending }
func (p *Proxy) Transport(caller string) http.RoundTripper           { return nil }
func (p *Proxy) Tunnel(ctx context.Context, caller, service string, port uint16) (net.Conn, error) {
	return nil, errPending
}
