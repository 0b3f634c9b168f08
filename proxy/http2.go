package proxy

import (
	"bytes"
)

// http2Upstream is what an endpoint keeps of its HTTP/2 connections.
type http2Upstream struct{}

// serveHTTP2 takes over a connection whose first bytes, which it still holds, are HTTP/2's preface:
// it is carried as it is, and counts as one exchange.
func (s *session) serveHTTP2() {
	early := bytes.Clone(s.in.bytes())
	s.releaseBuffer()
	s.disarm()
	s.from.callTunnel(&tunnel{conn: s.conn, early: early}, s.target)
}

// drainHTTP2 tells the endpoint's HTTP/2 connections that no further stream comes.
func (e *endpoint) drainHTTP2() {}
