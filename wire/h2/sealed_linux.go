package h2

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// sealed is edge for a tls.Conn with a buffer beneath it: reads and writes of the socket never wait, and
// what TLS makes of a whole batch of frames leaves in one write. The connection must have shaken hands.
type sealed struct {
	nc    net.Conn // the tls.Conn, or what embeds it
	under *beneath
	rc    syscall.RawConn
	c     *Conn
	err   error
	fd    uintptr // valid in read

	out     []byte // of the write under way
	wrote   int
	werr    error
	sent    atomic.Int64
	onWrite func(fd uintptr) bool
	onFlush func(p []byte) (int, error)
}

func newSealed(nc net.Conn, b *beneath, rc syscall.RawConn) *sealed {
	t := &sealed{nc: nc, under: b, rc: rc}
	t.onWrite, t.onFlush = t.write, t.send
	b.hold(true)
	return t
}

func (t *sealed) run(c *Conn) error {
	t.c = c
	t.under.raw, t.under.mayEnd = t.receive, c.mayEnd
	defer t.plainAgain()
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

// plainAgain is for the connection's last words, which may wait.
func (t *sealed) plainAgain() { t.under.raw = nil }

// read takes what the socket has. It returns false to wait for the next edge.
func (t *sealed) read(fd uintptr) bool {
	t.fd = fd
	t.under.drained = false
	for {
		n, err := t.fill(t.c.space())
		if n > 0 {
			if t.err = t.c.feed(n); t.err != nil {
				return true
			}
		}
		switch {
		case isDry(err):
			t.c.rest()
			return false
		case err != nil:
			t.err = closedBy(err)
			return true
		}
	}
}

// fill reads records until p is full or the socket is empty: what came together is answered together.
func (t *sealed) fill(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = t.nc.Read(p[n:])
		n += m
	}
	return n, err
}

// receive reads the socket for the buffer.
func (t *sealed) receive(p []byte) (int, error) {
	n, errno := rawCall(unix.SYS_RECVFROM, t.fd, p)
	switch {
	case errno == syscall.EAGAIN:
		return 0, errDry
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (t *sealed) tryWrite(p []byte) (bool, error) {
	if _, err := t.nc.Write(p); err != nil {
		return false, err
	}
	return t.under.flush(t.onFlush)
}

// send goes through RawConn for the reason that edge.tryWrite has.
func (t *sealed) send(p []byte) (int, error) {
	t.out, t.wrote, t.werr = p, 0, nil
	err := t.rc.Write(t.onWrite)
	t.out = nil
	if err != nil {
		return 0, err
	}
	return t.wrote, t.werr
}

func (t *sealed) write(fd uintptr) bool {
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

// writeRest waits for the socket to take what TLS has made already.
func (t *sealed) writeRest(_ []byte, before func()) error {
	for p := t.under.taken(); len(p) > 0; p = t.under.taken() {
		if err := pieces(t.under.Conn, p, before, &t.sent); err != nil {
			return err
		}
	}
	return nil
}

func (t *sealed) confirmed() int64 { return t.sent.Load() - unacknowledged(t.rc) }

func (t *sealed) written() int64 { return t.sent.Load() }
