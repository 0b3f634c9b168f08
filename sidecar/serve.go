package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/shoalrun/shoal/sidecar/shim"
)

// serve begins to serve the sockets that came with an answer. The files become its own.
func (s *Sidecar) serve(a answer) error {
	defer closeAll(a.files)
	if a.Status == nil || len(a.files) < len(a.Status.Sockets) {
		return errors.New("its shim sent no sockets")
	}
	if s.rec.netns() {
		return s.serveNetns(a.Status.Sockets, a.files)
	}
	return s.serveExplicit(a.Status.Sockets, a.files)
}

// serveNetns serves the capture and the DNS sockets of a namespace.
func (s *Sidecar) serveNetns(sockets []shim.Socket, files []*os.File) error {
	capture := 0
	for i, k := range sockets {
		if err := s.check(files[i], k.Network, true); err != nil {
			return fmt.Errorf("its shim sent a wrong socket: %w", err)
		}
		s.rec.V6 = s.rec.V6 || k.Name == shim.SocketCapture && k.Network == "tcp6"
		if k.Name == shim.SocketCapture {
			capture++
		}
	}
	if capture == 0 {
		return errors.New("its shim sent no listener for calls")
	}
	for i, k := range sockets {
		if err := s.serveSocket(k, files[i]); err != nil {
			return err
		}
	}
	return nil
}

// dnsIdle is how long a TCP connection to the resolver may wait for its next question (RFC 7766 section
// 6.2.3 asks for seconds).
func dnsIdle() time.Duration { return 2 * time.Second }

func (s *Sidecar) serveSocket(k shim.Socket, f *os.File) error {
	switch {
	case k.Name == shim.SocketDNS && (k.Network == "udp4" || k.Network == "udp6"):
		pc, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		s.serveDNS(&dns.Server{PacketConn: pc, Handler: s.resolver()}, pc.Close)
	case k.Name == shim.SocketDNS:
		l, err := net.FileListener(f)
		if err != nil {
			return err
		}
		s.serveDNS(&dns.Server{Listener: l, Handler: s.resolver(), IdleTimeout: dnsIdle}, l.Close)
	case k.Name == shim.SocketCapture:
		l, err := net.FileListener(f)
		if err != nil {
			return err
		}
		s.goServe(l, func(ctx context.Context) error {
			return s.m.cfg.Proxy.ServeCapture(ctx, l.(*net.TCPListener), s.source())
		})
	}
	return nil // of a newer shim
}

func (s *Sidecar) resolver() *resolver {
	a := s.rec.Assignment
	return &resolver{m: s.m, service: a.Service, egress: a.Manifest.Egress, v6: s.rec.V6}
}

// serveDNS runs a DNS server until serving stops. Closing its socket, rather than shutting it down,
// is right at any moment, also before it has started.
func (s *Sidecar) serveDNS(srv *dns.Server, closeSocket func() error) {
	s.onStop(func() { _ = closeSocket() })
	s.serves.Go(func() { s.ended(srv.ActivateAndServe()) })
}

// goServe runs one listener until serving stops.
func (s *Sidecar) goServe(l net.Listener, serve func(context.Context) error) {
	s.onStop(func() { _ = l.Close() })
	s.serves.Go(func() { s.ended(serve(s.ctx)) })
}

// ended ends all serving where one part fails: an application without its calls is better restarted.
func (s *Sidecar) ended(err error) {
	if s.ctx.Err() == nil {
		s.cancel(fmt.Errorf("a listener ended: %v", err)) // nil, too, is too early
	}
}

// serveExplicit serves the loopback listeners that the environment names. Where the shim could pass
// none (Windows), they are opened here.
func (s *Sidecar) serveExplicit(sockets []shim.Socket, files []*os.File) error {
	for i := range s.rec.Listeners {
		l := &s.rec.Listeners[i]
		at := slices.IndexFunc(sockets, func(k shim.Socket) bool { return k.Name == l.Name })
		ln, err := s.listen(l, at, files)
		if err != nil {
			return fmt.Errorf("a listener for %s: %w", l.Name, err)
		}
		l.Address = ln.Addr().String()
		s.goServe(ln, func(ctx context.Context) error { return s.m.serveListener(ctx, ln, l, s.source()) })
	}
	return nil
}

func (s *Sidecar) listen(l *listener, at int, files []*os.File) (net.Listener, error) {
	if at < 0 {
		if l.Address == "" {
			l.Address = "127.0.0.1:0"
		}
		return net.Listen("tcp4", l.Address)
	}
	if err := s.check(files[at], "tcp4", true); err != nil {
		return nil, err
	}
	return net.FileListener(files[at])
}
