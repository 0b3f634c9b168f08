package proxy

import (
	"context"
	"net"
	"net/netip"
)

// Parked returns how many connections wait without a goroutine.
func Parked(p *Proxy) int { return p.parking.count() }

// ServeCaptured is ServeCapture for connections whose original destinations a test makes up: real ones
// take a network namespace, which the tests of sidecar have.
func ServeCaptured(ctx context.Context, p *Proxy, l net.Listener, src Source, original func(net.Conn) (netip.AddrPort, error)) error {
	return p.serve(ctx, l, &listener{source: src, aim: aimCapture, original: original})
}
