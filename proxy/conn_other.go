//go:build !linux

package proxy

import (
	"net"
	"syscall"
)

// rawConn: only Linux has the raw path; elsewhere every connection is served by its own methods.
func rawConn(net.Conn) syscall.RawConn { return nil }

func rawRead(uintptr, []byte) (int, error)  { return 0, errAgain }
func rawPeek(uintptr) bool                  { return false }
func rawWrite(uintptr, []byte) (int, error) { return 0, nil }

// unacknowledged: not known here, so nothing that was written counts as unseen.
func unacknowledged(syscall.RawConn) int { return 0 }

// pending: not known here.
func pending(syscall.RawConn) bool { return true }

// isBroken: of sockets it is not known here.
func isBroken(c net.Conn) bool {
	s, ok := c.(*streamConn)
	return ok && s.broken()
}

// abort makes the next Close reset the connection, so that its other end sees no orderly end.
func abort(c net.Conn) {
	switch c := c.(type) {
	case *net.TCPConn:
		_ = c.SetLinger(0) // a connection that is gone already needs none
	case *streamConn:
		c.reset()
	}
}
