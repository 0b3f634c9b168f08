//go:build linux

package sidecar

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

var _ DataPath = (*proxy.Proxy)(nil)

// answering is a data path that answers each call itself: with who called, and what for. It lets
// these tests see what a sidecar hands to a proxy.
type answering struct {
	services map[string]uint16

	mu       sync.Mutex // guards attached
	attached map[string]proxy.Dialer
}

func newAnswering() *answering {
	return &answering{
		services: map[string]uint16{"events": 1, "pubsub": 2, "orders": 16, "inventory": 17, "payments-svc": 18},
		attached: map[string]proxy.Dialer{},
	}
}

func (p *answering) Lookup(_, host string) (uint16, bool) {
	i, ok := p.services[host]
	return i, ok
}

func (p *answering) Snapshot() *fleet.Snapshot {
	s := &fleet.Snapshot{}
	for name, i := range p.services {
		s.Services = append(s.Services, &fleet.Service{Name: name, Index: i, Manifest: fleet.Manifest{
			Ports: []fleet.Port{{Number: 8080, Protocol: fleet.HTTP}, {Number: 9090, Protocol: fleet.GRPC}},
		}})
	}
	return s
}

func (p *answering) Attach(instance string, d proxy.Dialer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attached[instance] = d
}

func (p *answering) Detach(instance string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.attached, instance)
}

func (p *answering) isAttached(instance string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.attached[instance] != nil
}

type targetKey struct{}

func (p *answering) ServeCapture(ctx context.Context, l *net.TCPListener, src proxy.Source) error {
	return serveHTTP(ctx, l, src, func(c net.Conn) string { return originalOf(c) })
}

func (p *answering) ServeNamed(ctx context.Context, l net.Listener, src proxy.Source, host string, port uint16) error {
	return serveHTTP(ctx, l, src, func(net.Conn) string { return fmt.Sprintf("%s:%d", host, port) })
}

func (p *answering) ServeForward(ctx context.Context, l net.Listener, src proxy.Source) error {
	return serveHTTP(ctx, l, src, func(net.Conn) string { return "forward" })
}

func serveHTTP(ctx context.Context, l net.Listener, src proxy.Source, target func(net.Conn) string) error {
	srv := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, targetKey{}, target(c))
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "%s calls %s as %s", src.Instance, r.Context().Value(targetKey{}), r.Host)
		}),
	}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	err := srv.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// virtual is the address of a service in the default ranges.
func virtual(index uint16) (v4, v6 netip.Addr) { return fleet.DefaultRanges().Virtual(index, false) }
