package proxy

import (
	"bytes"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// A refused connection is looked at for this long, or for this many bytes, for a way to say no that
// its application understands (FOUNDATIONS, names, addresses, ports).
const (
	sniffTime  = 250 * time.Millisecond
	sniffBytes = len(preface)
)

// accessDenied is a fatal TLS alert (RFC 8446 section 6): access_denied.
var accessDenied = []byte{21, 3, 3, 0, 2, 2, 49}

func looksTLS(b []byte) bool { return len(b) >= 3 && b[0] == 22 && b[1] == 3 && b[2] <= 4 }

func looksHTTP(b []byte) bool {
	method, _, ok := bytes.Cut(b, []byte{' '})
	if !ok || len(method) < 3 {
		return false
	}
	for _, c := range method {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return true
}

// serveRefused says no to a connection that may not be.
func (l *listener) serveRefused(c net.Conn, to target) {
	early := sniff(c)
	switch {
	case looksTLS(early):
		l.callTunnel(&tunnel{conn: c, early: early, alert: accessDenied}, to)
	case string(early) == preface:
		l.refuseHTTP2(c, early, to)
	case looksHTTP(early):
		l.serveHTTP(c, to, early)
	default:
		l.callTunnel(&tunnel{conn: c, early: early}, to)
	}
}

func sniff(c net.Conn) []byte {
	_ = c.SetReadDeadline(time.Now().Add(sniffTime))
	defer c.SetReadDeadline(time.Time{})
	b := make([]byte, sniffBytes)
	n := 0
	for n < len(b) {
		m, err := c.Read(b[n:])
		n += m
		if err != nil || looksTLS(b[:n]) || looksHTTP(b[:n]) && !bytes.HasPrefix(b[:n], []byte("PRI ")) {
			break
		}
	}
	return b[:n]
}

// refuseHTTP2 answers every stream of c with the refusal. It is off the call path, so the standard
// library's server does.
func (l *listener) refuseHTTP2(c net.Conn, early []byte, to target) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	once := newOnce(&replayConn{Conn: c, early: early})
	server := &http.Server{
		Protocols: &protocols, IdleTimeout: time.Minute, ReadHeaderTimeout: headTime,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.answerHTTP2(w, r, to) }),
	}
	t := &tunnel{conn: c}
	l.keep(t)
	defer l.drop(t)
	_ = server.Serve(once) // ends with the connection
}

func (l *listener) answerHTTP2(w http.ResponseWriter, r *http.Request, to target) {
	x := &exchange{}
	x.begin(l.p, l.source, nil)
	x.route = x.table.route(l.source.Service, to)
	x.requestID([]byte(r.Header.Get("X-Request-Id")))
	x.obs.Method, x.obs.Path = r.Method, r.URL.RequestURI()
	x.call(&refusedStream{w: w, r: r})
}

// refusedStream answers by way of net/http.
type refusedStream struct {
	w http.ResponseWriter
	r *http.Request
}

// forward is reached where the table has changed and lets the caller pass now: it asks it to come again.
func (s *refusedStream) forward(*exchange) outcome {
	return outcome{reason: fleet.ReasonConnectFailed, final: &refusal{
		status: 503, reason: fleet.ReasonConnectFailed,
		detail: "this connection was refused before; a new one will pass.",
	}}
}

func (s *refusedStream) refuse(x *exchange) {
	f, h := x.refusal, s.w.Header()
	h.Set("Shoal-Reason", string(f.reason))
	h.Set("X-Request-Id", x.obs.RequestID)
	if isGRPC(s.r.Header.Get("Content-Type")) {
		x.obs.Status, x.obs.GRPCStatus = 200, f.grpcStatus()
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", strconv.Itoa(f.grpcStatus()))
		h.Set("Grpc-Message", percent(f.message()))
		return
	}
	x.obs.Status = f.status
	http.Error(s.w, f.body(x.obs.RequestID), f.status)
}

func isGRPC(contentType string) bool {
	return len(contentType) >= len("application/grpc") && contentType[:len("application/grpc")] == "application/grpc"
}

// replayConn gives bytes that were read already once more.
type replayConn struct {
	net.Conn
	early []byte
}

func (c *replayConn) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}

// once is a listener of one connection; Accept fails when that is closed.
type once struct {
	conn   net.Conn
	taken  bool
	closed chan struct{}
	close  func()
}

type onceConn struct {
	net.Conn
	closed func()
}

func (c *onceConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

func newOnce(c net.Conn) *once {
	o := &once{closed: make(chan struct{})}
	o.close = sync.OnceFunc(func() { close(o.closed) })
	o.conn = &onceConn{c, o.close}
	return o
}

func (o *once) Accept() (net.Conn, error) {
	if !o.taken {
		o.taken = true
		return o.conn, nil
	}
	<-o.closed
	return nil, net.ErrClosed
}

func (o *once) Addr() net.Addr { return o.conn.LocalAddr() }

func (o *once) Close() error { return nil }
