package h2

import (
	"net"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newTransport waits on readiness edges where the connection has a descriptor.
func newTransport(nc net.Conn) transport {
	if b := under(nc); b != nil {
		if rc := descriptor(b.Conn); rc != nil {
			return newSealed(nc, b, rc)
		}
		return &plain{nc: nc}
	}
	rc := descriptor(nc)
	if rc == nil {
		return &plain{nc: nc}
	}
	t := &edge{nc: nc, rc: rc}
	t.onWrite = t.write
	return t
}

// descriptor is that of nc, or nil where it has none.
func descriptor(nc net.Conn) syscall.RawConn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return rc
}

// edge reads and writes a descriptor itself. The connection's life runs inside one RawConn.Read, which
// resets the poller at entry and waits when its callback returns false: so a short read needs no second
// one that could only say EAGAIN. Two things follow. Nothing in the callback may close this or another
// connection, since Close waits for callbacks: ending is a read deadline, see Conn.poke. And an end of
// file that came together with the last bytes has no edge of its own: Conn.tick finds it.
type edge struct {
	nc      net.Conn
	rc      syscall.RawConn
	c       *Conn
	err     error
	out     []byte // of the write under way
	wrote   int
	werr    error
	sent    atomic.Int64
	onWrite func(fd uintptr) bool // made once: no closure per write
}

func (t *edge) run(c *Conn) error {
	t.c = c
	for {
		err := t.rc.Read(t.read)
		if t.err != nil {
			return t.err
		}
		if c.isStopping() {
			return errStopped
		}
		if !deadline(err) {
			return closedBy(err)
		}
		if err := rearm(c); err != nil {
			return err
		}
	}
}

// read drains the socket. It returns false to wait for the next edge.
func (t *edge) read(fd uintptr) bool {
	for {
		p := t.c.space()
		n, errno := rawCall(unix.SYS_RECVFROM, fd, p)
		if errno == syscall.EAGAIN {
			t.c.rest()
			return false
		}
		if errno != 0 || n == 0 {
			t.err = closedBy(errnoErr(errno))
			return true
		}
		if t.err = t.c.feed(n); t.err != nil {
			return true
		}
		if n < len(p) && !t.c.mayEnd() {
			t.c.rest()
			return false
		}
	}
}

// tryWrite goes through RawConn, which keeps the descriptor from being closed, and used again for
// another connection, meanwhile. Only one goroutine writes at a time; Conn.flush sees to it.
func (t *edge) tryWrite(p []byte) (bool, error) {
	t.out, t.wrote, t.werr = p, 0, nil
	err := t.rc.Write(t.onWrite)
	t.out = nil
	if err != nil {
		return false, err
	}
	return t.wrote == len(p), t.werr
}

func (t *edge) writeRest(p []byte, before func()) error {
	n := t.wrote
	t.wrote = 0
	return pieces(t.nc, p[n:], before, &t.sent)
}

func (t *edge) confirmed() int64 { return t.sent.Load() - unacknowledged(t.rc) }

func (t *edge) written() int64 { return t.sent.Load() }

func (t *edge) write(fd uintptr) bool {
	n, errno := rawCall(unix.SYS_SENDTO, fd, t.out)
	switch errno {
	case 0:
		t.wrote = n
		t.sent.Add(int64(n))
	case syscall.EAGAIN:
	default:
		t.werr = errno
	}
	return true
}

// unacknowledged asks the socket how many bytes its peer's system has not confirmed (SIOCOUTQ, tcp(7)).
func unacknowledged(rc syscall.RawConn) (n int64) {
	_ = rc.Control(func(fd uintptr) { // fails for a closed socket, which tells nothing
		if q, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			n = int64(q)
		}
	})
	return n
}

func errnoErr(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// rawCall is recvfrom(2) or sendto(2) on a socket that does not block, so the scheduler need not know. They take a fortieth less than read(2) and
// write(2), which go by the file system's layer.
func rawCall(call, fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(call, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}
