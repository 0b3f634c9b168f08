package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/shoalrun/shoal/sidecar/shim"
)

// Dial connects to a port of the application: on 127.0.0.1, on ::1, and in netns mode on the address of
// its lo. The one that answered last is tried first. It is made for the call that needs it: a
// connection ahead of need would keep an idle application busy, and could be closed when it is used.
func (s *Sidecar) Dial(ctx context.Context, port uint16) (*net.TCPConn, error) {
	var failed error
	for _, host := range s.hosts(port) {
		c, err := s.dialHost(ctx, netip.AddrPortFrom(host, s.portOf(port)))
		if err == nil {
			s.dialed.Store(port, host)
			return c, nil
		}
		if ctx.Err() != nil || errors.Is(err, errShimGone) {
			return nil, s.dialError(port, err)
		}
		if failed == nil {
			failed = err
		}
	}
	return nil, s.dialError(port, failed)
}

func (s *Sidecar) dialError(port uint16, err error) error {
	return fmt.Errorf("%s does not answer on port %d: %w", s.rec.Assignment.Instance, port, err)
}

// hosts returns where an application may listen, likely ones first.
func (s *Sidecar) hosts(port uint16) []netip.Addr {
	hosts := make([]netip.Addr, 0, 5)
	if last, ok := s.dialed.Load(port); ok {
		hosts = append(hosts, last.(netip.Addr))
	}
	hosts = append(hosts, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	if !s.rec.netns() {
		return hosts
	}
	hosts = append(hosts, loAddr4)
	if s.rec.V6 {
		hosts = append(hosts, loAddr6(s.m.cfg.Ranges))
	}
	return hosts
}

// portOf returns where the application listens instead of a port that it declares.
func (s *Sidecar) portOf(declared uint16) uint16 {
	if p := s.rec.Ports[declared]; p != 0 {
		return p
	}
	return declared
}

func (s *Sidecar) dialHost(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	if s.rec.netns() {
		return s.dialInside(ctx, to)
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(to.Addr().String(), strconv.Itoa(int(to.Port()))))
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// dialInside connects a socket of the application's network namespace, which the shim opens.
func (s *Sidecar) dialInside(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	network := "tcp4"
	if to.Addr().Is6() {
		network = "tcp6"
	}
	a, err := s.link.call(ctx, shim.Message{Verb: shim.VerbDial, Network: network})
	if err != nil {
		return nil, err
	}
	defer closeAll(a.files)
	if len(a.files) != 1 {
		return nil, errors.New("its shim sent no socket")
	}
	if err := s.check(a.files[0], network, false); err != nil {
		return nil, fmt.Errorf("its shim sent a wrong socket: %w", err)
	}
	return connect(ctx, a.files[0], to)
}
