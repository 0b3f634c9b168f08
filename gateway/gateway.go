// Package gateway is the edge of the fleet: public listeners, then the same outbound path as any
// call.
//
// It stands at the start of the first walk, a call: it finds which service answers for a host and
// a path, and the proxy does the rest under the identity [fleet.Gateway]. All methods are safe for
// concurrent use.
package gateway

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// Gateway routes by Host and path to the services that are exposed.
type Gateway struct {
	proxy *proxy.Proxy
	table atomic.Pointer[table]
}

// table is immutable once stored. Each host has its routes with the longest path first.
type table map[string][]route

type route struct {
	path    string // without a trailing slash; empty matches all
	service string
}

// New returns a gateway that forwards through p. Until the first Install it exposes nothing.
func New(p *proxy.Proxy) *Gateway {
	g := &Gateway{proxy: p}
	g.table.Store(&table{})
	return g
}

// Install compiles what s exposes and swaps it in whole.
func (g *Gateway) Install(s *fleet.Snapshot) {
	t := make(table)
	for _, svc := range s.Services {
		for _, e := range svc.Manifest.Expose {
			host := strings.ToLower(e.Host)
			t[host] = append(t[host], route{strings.TrimSuffix(e.Path, "/"), svc.Name})
		}
	}
	for _, routes := range t {
		slices.SortStableFunc(routes, func(a, b route) int { return cmp.Compare(len(b.path), len(a.path)) })
	}
	g.table.Store(&t)
}

// Serve accepts on l until ctx ends or l fails.
func (g *Gateway) Serve(ctx context.Context, l net.Listener) error {
	return g.proxy.ServeEdge(ctx, l, g.Match)
}

// Match finds the service that answers for a request's Host header and path. The longest exposed
// path that is a prefix at a segment boundary wins; a port in host is ignored.
func (g *Gateway) Match(host, path string) (service string, ok bool) {
	path, _, _ = strings.Cut(path, "?")
	for _, r := range (*g.table.Load())[hostname(host)] {
		if under(path, r.path) {
			return r.service, true
		}
	}
	return "", false
}

// hostname strips the port and folds the case; a trailing dot names the same host.
func hostname(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func under(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || prefix == "" || rest[0] == '/')
}
