package conformance

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/gateway"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
)

// application is what stands behind Shoal: where it listens, and the protocol that its port declares.
type application struct {
	addr     string
	protocol fleet.Protocol
}

// path is one way from a caller to an application. open returns the address that the caller dials.
type path struct {
	name string
	open func(t testing.TB, a application) string
}

// paths are all ways that need nothing but this process.
func paths() []path {
	return []path{{"hop", hop}, {"nodes", twoNodes}, {"gateway", edge}}
}

// snapshot has `caller`, which calls `target`, an instance of which runs on a node.
func snapshot(a application, node string) *fleet.Snapshot {
	return &fleet.Snapshot{Fleet: "test", Version: 1, Services: []*fleet.Service{
		{Name: "caller", Index: 16, Deployed: true, Endpoints: []fleet.Endpoint{{Instance: "caller-1", Node: "one"}},
			Manifest: fleet.Manifest{Service: "caller", Calls: []fleet.Call{{Service: "target"}}}},
		{Name: "target", Index: 17, Deployed: true, Endpoints: []fleet.Endpoint{{Instance: "target-1", Node: node}},
			Manifest: fleet.Manifest{
				Service: "target", Ports: []fleet.Port{{Number: 8080, Protocol: a.protocol}},
				Expose: []fleet.Expose{{Host: "127.0.0.1"}, {Host: "target"}},
			}},
	}}
}

// hop is the caller's own listener on the node that runs the application.
func hop(t testing.TB, a application) string {
	p := start(t, proxy.Config{Node: "one"}, snapshot(a, "one"))
	p.Attach("target-1", dialer(a.addr))
	return named(t, p)
}

// twoNodes has the application on another node than its caller.
func twoNodes(t testing.TB, a application) string {
	far := start(t, proxy.Config{Node: "two"}, snapshot(a, "two"))
	far.Attach("target-1", dialer(a.addr))
	peers := listen(t)
	background(t, func(ctx context.Context) error { return far.ServePeer(ctx, peers) })
	near := start(t, proxy.Config{Node: "one", Peer: func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", peers.Addr().String())
	}}, snapshot(a, "two"))
	return named(t, near)
}

// edge is the gateway.
func edge(t testing.TB, a application) string {
	s := snapshot(a, "one")
	p := start(t, proxy.Config{Node: "one"}, s)
	p.Attach("target-1", dialer(a.addr))
	g := gateway.New(p)
	g.Install(s)
	l := listen(t)
	background(t, func(ctx context.Context) error { return g.Serve(ctx, l) })
	return l.Addr().String()
}

func start(t testing.TB, c proxy.Config, s *fleet.Snapshot) *proxy.Proxy {
	t.Helper()
	c.Recorder, c.Grace = observe.New(observe.Config{}), 2*time.Second
	p, err := proxy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	background(t, p.Run)
	p.Install(s)
	return p
}

func named(t testing.TB, p *proxy.Proxy) string {
	l := listen(t)
	background(t, func(ctx context.Context) error {
		return p.ServeNamed(ctx, l, proxy.Source{Service: "caller", Instance: "caller-1"}, "target", 8080)
	})
	return l.Addr().String()
}

// background runs f until the test ends.
func background(t testing.TB, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("background: %v", err)
		}
	})
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dialer reaches the application, whatever port is asked for.
type dialer string

func (d dialer) Dial(ctx context.Context, _ uint16) (*net.TCPConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", string(d))
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// indent sets text off in a failure.
func indent(text string) string {
	return "\t" + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n\t")
}
