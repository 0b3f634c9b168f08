package api

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"

	"github.com/shoalrun/shoal/fleet"
)

// The headers of `/call`. They are removed before the request leaves.
const (
	headerFrom   = "Shoal-From"   // the service to act as; absent: the operator
	headerTarget = "Shoal-Target" // the URL that is called
)

// tunnelProtocol is the protocol that `/forward` upgrades to (RFC 9110 section 7.8): bytes as they are.
const tunnelProtocol = "shoal-tunnel"

// call sends a request of any method into the fleet and streams both bodies.
func (s *Server) call(w http.ResponseWriter, r *http.Request) {
	if s.Transport == nil {
		http.Error(w, s.lacks("call"), http.StatusNotImplemented)
		return
	}
	target, err := url.Parse(r.Header.Get(headerTarget))
	if err != nil || target.Scheme != "http" || target.Host == "" {
		http.Error(w, fmt.Sprintf("%q is not a URL to call: write http://SERVICE/PATH", r.Header.Get(headerTarget)), http.StatusBadRequest)
		return
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL, p.Out.Host = target, target.Host
			if host := p.In.Header.Get(headerHost); host != "" {
				p.Out.Host = host
			}
			for _, h := range []string{headerFrom, headerTarget, headerHost} {
				p.Out.Header.Del(h)
			}
		},
		Transport:     s.Transport(callerOf(r.Header.Get(headerFrom))),
		FlushInterval: -1, // whatever the service streams shows at once
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, fmt.Sprintf("%s gave no answer: %v", target.Host, err), http.StatusBadGateway)
		},
	}
	proxy.ServeHTTP(w, r)
}

// headerHost is the Host header to send where it is not the target's.
const headerHost = "Shoal-Host"

// callerOf is who a call of the operator is made as.
func callerOf(from string) string {
	if from == "" {
		return fleet.Operator
	}
	return from
}

// forward turns a connection into a tunnel to a service's port, both directions ending on their own.
func (s *Server) forward(w http.ResponseWriter, r *http.Request) {
	if s.Tunnel == nil {
		http.Error(w, s.lacks("forward"), http.StatusNotImplemented)
		return
	}
	q := r.URL.Query()
	port, err := strconv.ParseUint(q.Get("port"), 10, 16)
	if err != nil || r.Header.Get("Upgrade") != tunnelProtocol {
		http.Error(w, "/forward wants a port, and an upgrade to "+tunnelProtocol, http.StatusBadRequest)
		return
	}
	tunnelTo(w, r, func(ctx context.Context) (net.Conn, error) {
		return s.Tunnel(ctx, callerOf(q.Get("from")), q.Get("service"), uint16(port))
	})
}

// via turns a connection into a tunnel to the operator API of another node.
func (s *Server) via(w http.ResponseWriter, r *http.Request) {
	if s.Via == nil {
		http.Error(w, s.lacks("what concerns other nodes"), http.StatusNotImplemented)
		return
	}
	node := r.URL.Query().Get("name")
	if node == "" || r.Header.Get("Upgrade") != tunnelProtocol {
		http.Error(w, "/node wants a name, and an upgrade to "+tunnelProtocol, http.StatusBadRequest)
		return
	}
	tunnelTo(w, r, func(ctx context.Context) (net.Conn, error) { return s.Via(ctx, node) })
}

// tunnelTo turns the request's connection into one to what dial opens.
func tunnelTo(w http.ResponseWriter, r *http.Request, dial func(context.Context) (net.Conn, error)) {
	ctx, stop := untilClosing(r.Context())
	defer stop()
	far, err := dial(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "a tunnel wants HTTP/1.1: "+err.Error(), http.StatusHTTPVersionNotSupported)
		return
	}
	defer near.Close()
	fmt.Fprintf(near, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", tunnelProtocol)
	// Closing both ends is the only way to end a copy that waits.
	defer contextClose(ctx, near, far)()
	// Only what was read ahead: reading on by the server's buffer would end ctx at a half-close.
	ahead := io.LimitReader(buffered, int64(buffered.Reader.Buffered()))
	Splice(near, io.MultiReader(ahead, near), far)
}

// Splice copies between two connections until both directions have ended, each by its own half-close.
// What comes from near is read from in, which may hold bytes that were read ahead.
func Splice(near net.Conn, in io.Reader, far net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(far, in)
		closeWrite(far)
	}()
	io.Copy(near, far)
	closeWrite(near)
	<-done
}

// closeWrite ends one direction; a connection that cannot do that ends whole.
func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
		return
	}
	c.Close()
}
