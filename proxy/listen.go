package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// aim is how a listener's connections, or their requests, tell what they are for.
type aim uint8

const (
	aimFixed   aim = iota // every request is for the connection's target
	aimHost               // the request's host, or the authority of its target, names it
	aimEdge               // host and path, by the gateway's match
	aimPeer               // internal fields, which name the caller too
	aimCapture            // the address that the application dialed
	aimMirror             // a copy's own route
)

// listener is one source of connections: who calls, and how its targets are found.
type listener struct {
	p      *Proxy
	source Source
	aim    aim
	target target // of aimFixed
	match  func(host, path string) (service string, ok bool)
	copied *copied // of aimMirror
	// tellsID: answers carry X-Request-Id. They leave the mesh here, and a person may want to ask `why`.
	tellsID bool
	// original tells where a captured connection was going.
	original func(net.Conn) (netip.AddrPort, error)

	mu       sync.Mutex // guards sessions and closing
	sessions map[hurried]struct{}
	closing  bool
}

// hurried is a connection in progress, which can be told to end: after its exchange, or now.
type hurried interface{ hurry(now bool) }

// ServeCapture serves the connections that a namespace redirected to l: each goes where the
// application had dialed. Like every Serve method it returns when ctx ends (nil) or l fails, and
// closes l; exchanges in progress end by themselves, and idle connections have a second for one more.
func (p *Proxy) ServeCapture(ctx context.Context, l *net.TCPListener, src Source) error {
	return p.serve(ctx, l, &listener{source: src, aim: aimCapture, original: originalDestination})
}

// ServeNamed serves connections that are all for one target: a service, an alias or a need of the
// caller, or a host outside the fleet, and its port (0: the default port).
func (p *Proxy) ServeNamed(ctx context.Context, l net.Listener, src Source, host string, port uint16) error {
	return p.serve(ctx, l, &listener{source: src, aim: aimFixed, target: target{host: host, port: port}})
}

// ServeForward serves a forward proxy for HTTP_PROXY: requests in absolute form, and CONNECT.
func (p *Proxy) ServeForward(ctx context.Context, l net.Listener, src Source) error {
	return p.serve(ctx, l, &listener{source: src, aim: aimHost})
}

// ServeEdge serves the gateway: match finds the service of a request, by its Host field and path
// (with its query). match must not keep the strings. The caller is fleet.Gateway.
func (p *Proxy) ServeEdge(ctx context.Context, l net.Listener, match func(host, path string) (service string, ok bool)) error {
	return p.serve(ctx, l, &listener{source: Source{Service: fleet.Gateway}, aim: aimEdge, match: match, tellsID: true})
}

// ServePeer serves other processes' proxies, each request for a caller that it names and that the
// snapshot places with that process. Only peers may reach l. A connection that tells its peer's name, by a method
// Peer, has shaken hands, and that name is believed: it is what a certificate says. To make much of each write
// there is a buffer beneath its TLS ([h2.Beneath]).
func (p *Proxy) ServePeer(ctx context.Context, l net.Listener) error {
	return p.serve(ctx, l, &listener{aim: aimPeer})
}

func (p *Proxy) serve(ctx context.Context, l net.Listener, from *listener) error {
	from.p = p
	from.sessions = map[hurried]struct{}{}
	p.know(from)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	if p.enter() {
		defer p.leave()
	}
	err := from.accept(ctx, l)
	from.release()
	return err
}

// accept starts a goroutine for each connection. A shortage of descriptors passes; anything else ends it.
func (l *listener) accept(ctx context.Context, ln net.Listener) error {
	for wait := time.Duration(0); ; {
		c, err := ln.Accept()
		if err == nil {
			wait = 0
			l.start(c)
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if ne := net.Error(nil); !errors.As(err, &ne) || errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("proxy: accept on %s: %w", ln.Addr(), err)
		}
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// start serves c in a goroutine of its own.
func (l *listener) start(c net.Conn) {
	if !l.p.enter() {
		c.Close()
		return
	}
	go func() {
		defer l.p.leave()
		l.handle(c)
	}()
}

// handle finds out what c is for, where that does not depend on its requests, and serves it.
func (l *listener) handle(c net.Conn) {
	to := l.target
	switch l.aim {
	case aimCapture:
		dialed, err := l.destination(c)
		if err != nil {
			abort(c)
			c.Close()
			return
		}
		to = dialed
	case aimFixed:
	case aimPeer:
		l.servePeer(c)
		return
	default:
		l.serveHTTP(c, to, nil)
		return
	}
	r := l.p.table.Load().route(l.source.Service, to)
	switch {
	case r.refusal != nil:
		l.serveRefused(c, to)
	case r.port.Protocol == fleet.HTTP:
		l.serveHTTP(c, to, nil)
	case r.port.Protocol == fleet.GRPC:
		l.serveHTTP(c, to, nil)
	default:
		l.serveTunnel(c, to)
	}
}

// destination turns the address that an application dialed back into the name that it resolved.
func (l *listener) destination(c net.Conn) (target, error) {
	at, err := l.original(c)
	if err != nil {
		return target{}, err
	}
	addr := at.Addr().Unmap()
	index, name, ok := l.p.cfg.Ranges.Index(addr)
	switch {
	case ok && !name:
		if s := l.p.table.Load().indexes[index]; s != nil {
			return target{host: s.Name, port: at.Port(), exact: true}, nil
		}
	case ok && l.p.cfg.NameOf != nil:
		if host, known := l.p.cfg.NameOf(addr); known {
			return target{host: host, port: at.Port()}, nil
		}
	}
	return target{host: addr.String(), port: at.Port()}, nil
}

// keep notes a session, so that it can be told to hurry; false once the listener is released. A connection may
// become a session only then: its hands were shaken, or it was parked.
func (l *listener) keep(s hurried) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions[s] = struct{}{}
	if l.closing && l.p.know(l) {
		s.hurry(true)
	}
	return !l.closing
}

func (l *listener) drop(s hurried) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sessions, s)
	l.forgetLocked()
}

// release lets idle connections end after a last call, and the others end with the exchange that they carry.
func (l *listener) release() {
	l.hurry(false)
	l.p.parking.release(l)
}

// closeAll closes every connection.
func (l *listener) closeAll() { l.hurry(true) }

func (l *listener) hurry(now bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	for s := range l.sessions {
		s.hurry(now)
	}
	l.forgetLocked()
}

// forgetLocked has the proxy forget l, if that has ended and so has what it accepted.
func (l *listener) forgetLocked() {
	if l.closing && len(l.sessions) == 0 {
		l.p.forget(l)
	}
}

func (l *listener) released() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing
}
