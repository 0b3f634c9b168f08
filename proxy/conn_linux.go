package proxy

import (
	"io"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawConn returns the descriptor behind c, for reads and writes that never wait and so need not
// tell Go's scheduler; nil where c has none (TLS, a pipe), and then c's own methods serve.
func rawConn(c net.Conn) syscall.RawConn {
	switch c := c.(type) {
	case *net.TCPConn:
		rc, _ := c.SyscallConn()
		return rc
	case *net.UnixConn:
		rc, _ := c.SyscallConn()
		return rc
	}
	return nil
}

// rawRead reads what is there: errAgain where nothing is, io.EOF at the end. On a socket recvfrom(2) and sendto(2) take a fortieth less than read(2)
// and write(2), which go by the file system's layer.
func rawRead(fd uintptr, p []byte) (int, error) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
		switch {
		case e == syscall.EINTR:
			continue
		case e == syscall.EAGAIN:
			return 0, errAgain
		case e != 0:
			return 0, e
		case n == 0:
			return 0, io.EOF
		}
		return int(n), nil
	}
}

// rawPeek reports whether there is something to read, or the end; it takes nothing.
func rawPeek(fd uintptr) bool {
	var b [1]byte
	const flags = syscall.MSG_PEEK | syscall.MSG_DONTWAIT
	_, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, flags, 0, 0)
	return e != syscall.EAGAIN
}

// rawWrite writes what there is room for, which may be nothing.
func rawWrite(fd uintptr, p []byte) (int, error) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0)
		switch e {
		case 0:
			return int(n), nil
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return 0, nil
		}
		return 0, e
	}
}

// unacknowledged returns how many of the bytes written to a TCP connection its peer's kernel never
// took (SIOCOUTQ, tcp(7)). What it never took, the application behind it cannot have seen.
func unacknowledged(rc syscall.RawConn) int {
	n := 0
	err := rc.Control(func(fd uintptr) {
		kind, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil || kind == unix.AF_UNIX {
			return
		}
		if q, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			n = q
		}
	})
	if err != nil {
		return 0
	}
	return n
}

// pending reports whether there is something to read.
func pending(rc syscall.RawConn) (some bool) {
	_ = rc.Control(func(fd uintptr) { // fails on a closed connection, which has nothing
		n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
		some = err == nil && n > 0
	})
	return some
}

// isBroken reports whether c, which this process has not closed, was reset or lost: its socket has left
// every state of a connection (tcp(7), TCP_INFO).
func isBroken(c net.Conn) (broken bool) {
	if s, ok := c.(*streamConn); ok {
		return s.broken()
	}
	rc := rawConn(c)
	if rc == nil {
		return false
	}
	_ = rc.Control(func(fd uintptr) { // fails on a connection that was closed here
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		broken = err == nil && info.State == unix.BPF_TCP_CLOSE
	})
	return broken
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
