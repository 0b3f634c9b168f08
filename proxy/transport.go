package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// Transport returns a RoundTripper whose requests are calls of caller: an operator's, a delivery's, or
// those of a service that is acted for. A request's URL is http://SERVICE[:PORT]/…; without a port it
// goes to the default one. Bodies stream both ways. A refusal is a response like any other, with a
// Shoal-Reason. Calls of gRPC, by their content type, go by HTTP/2. The same caller gets the same Transport.
func (p *Proxy) Transport(caller string) http.RoundTripper {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.callers[caller]
	if t == nil {
		l := p.within(caller)
		t = &callerTransport{http1: l.transport(), http2: l.transport()}
		t.http2.Protocols = new(http.Protocols)
		t.http2.Protocols.SetUnencryptedHTTP2(true)
		p.callers[caller] = t
	}
	return t
}

// callerTransport takes the requests of a caller in this process to the proxy.
type callerTransport struct{ http1, http2 *http.Transport }

// RoundTrip makes one call.
func (t *callerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if isGRPC(r.Header.Get("Content-Type")) {
		return t.http2.RoundTrip(r)
	}
	return t.http1.RoundTrip(r)
}

// CloseIdleConnections lets go of connections without a call.
func (t *callerTransport) CloseIdleConnections() {
	t.http1.CloseIdleConnections()
	t.http2.CloseIdleConnections()
}

// transport is one whose connections l serves.
func (l *listener) transport() *http.Transport {
	return &http.Transport{
		DialContext:           func(context.Context, string, string) (net.Conn, error) { return l.open() },
		DisableCompression:    true,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       30 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// within is a listener for callers in this process.
func (p *Proxy) within(caller string) *listener {
	return &listener{p: p, source: Source{Service: caller}, aim: aimHost, tellsID: caller != fleet.Events, sessions: map[hurried]struct{}{}}
}

// open returns a connection whose other end is served.
func (l *listener) open() (net.Conn, error) {
	near, far, err := connPair()
	if err != nil {
		return nil, err
	}
	l.p.know(l)
	l.start(far)
	return near, nil
}

// Tunnel opens a connection to a port of a service (0: its default port) as a call of caller. It waits
// for an instance as any call does, until ctx ends; the connection outlives ctx. A refusal is the error.
func (p *Proxy) Tunnel(ctx context.Context, caller, service string, port uint16) (net.Conn, error) {
	near, far, err := connPair()
	if err != nil {
		return nil, err
	}
	if !p.enter() {
		near.Close()
		far.Close()
		return nil, fmt.Errorf("proxy: tunnel to %s: this process is stopping", service)
	}
	l := p.within(caller)
	t := &openingTunnel{tunnel: tunnel{conn: far}, opened: make(chan error, 1)}
	stop := context.AfterFunc(ctx, func() { t.gone.Store(true) })
	go func() {
		defer p.leave()
		t.call(l, target{host: service, port: port})
	}()
	if err := <-t.opened; err != nil {
		near.Close()
		return nil, fmt.Errorf("proxy: tunnel to %s: %w", service, err)
	}
	if !stop() {
		near.Close()
		return nil, context.Cause(ctx)
	}
	return near, nil
}

// openingTunnel is a tunnel that tells once it stands, or why it does not.
type openingTunnel struct {
	tunnel
	gone   atomic.Bool
	opened chan error
	begun  bool
}

func (t *openingTunnel) call(l *listener, to target) {
	l.keep(t)
	defer l.drop(t)
	defer t.conn.Close()
	x := &t.x
	x.begin(l.p, l.source, &t.gone)
	x.route = x.table.route(l.source.Service, to)
	x.requestID(nil)
	x.trace(observe.Trace{}, false)
	x.call(t)
}

func (t *openingTunnel) forward(x *exchange) outcome {
	c, late, o := x.dialTunnel()
	if c == nil {
		return o
	}
	t.opened <- nil
	t.begun = true
	x.tunneled()
	x.obs.BytesIn, x.obs.BytesOut, o = join(t.conn, c, nil, late)
	return o
}

func (t *openingTunnel) refuse(x *exchange) {
	if t.begun {
		return // it broke later, which its end tells
	}
	f := x.refusal
	t.opened <- fmt.Errorf("%s %s (%w, %s)", f.detail, f.remedy, errRefused, f.reason)
}
