package proxy

import (
	"bytes"
	"net"
	"time"
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
	case looksHTTP(early): // of either version: HTTP/2's preface is made like a request
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

func isGRPC(contentType string) bool {
	return len(contentType) >= len("application/grpc") && contentType[:len("application/grpc")] == "application/grpc"
}
