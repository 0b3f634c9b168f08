package proxy

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/shoalrun/shoal/wire/h1"
	"golang.org/x/sys/unix"
)

// pipe is what splice(2) needs between two sockets. An idle one is empty.
type pipe struct{ r, w int }

// pipeSize is how much a pipe is asked to hold: a user may have a few hundred such ones (pipe(7)), and beyond
// that smaller ones.
const pipeSize = 256 << 10

// pipes are the idle ones. Those that the garbage collector takes out are closed.
var pipes sync.Pool

// getPipe returns nil where the system has none to give.
func getPipe() *pipe {
	if p, _ := pipes.Get().(*pipe); p != nil {
		return p
	}
	var fd [2]int
	if unix.Pipe2(fd[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	_, _ = unix.FcntlInt(uintptr(fd[0]), unix.F_SETPIPE_SZ, pipeSize) // else it holds what it does
	p := &pipe{fd[0], fd[1]}
	runtime.AddCleanup(p, func(fd [2]int) { closePipe(fd[0], fd[1]) }, fd)
	return p
}

func closePipe(r, w int) {
	unix.Close(r)
	unix.Close(w)
}

// splice relays the rest of a large body without bringing its bytes into this process, where nobody wants to
// see them. What it leaves of the body is to be relayed by other means.
func (s *session) splice(x *exchange, u *upstream, body *h1.Body) error {
	if s.raw == nil || u.raw == nil || x.digest != nil || body.Left() < largeSize {
		return nil
	}
	p := getPipe()
	if p == nil {
		return nil
	}
	for !body.Done() {
		n, err := p.fill(x, u, body.Left(), s.until(x))
		if err != nil {
			pipes.Put(p)
			return err
		}
		body.Skip(n)
		x.obs.BytesOut += n
		if p.drain(s, n) != nil {
			return errGone // p, which is not empty, is closed once it is garbage
		}
	}
	pipes.Put(p)
	return nil
}

// fill moves what u has, at most limit bytes, into the pipe. It waits for the first.
func (p *pipe) fill(x *exchange, u *upstream, limit int64, until time.Time) (n int64, err error) {
	if u.arm(until) && x.left() {
		return 0, errGone
	}
	for {
		waited := u.raw.Read(func(fd uintptr) bool {
			n, err = splice(int(fd), p.w, limit)
			return err != syscall.EAGAIN
		})
		switch {
		case waited == nil && err == nil && n == 0:
			return 0, io.EOF
		case waited == nil:
			return n, err
		case !errors.Is(waited, os.ErrDeadlineExceeded):
			return 0, waited
		}
		if err := u.again(x, until); err != nil {
			return 0, err
		}
	}
}

// drain moves n bytes from the pipe to the caller. What makes no progress for Config.Idle fails.
func (p *pipe) drain(s *session, n int64) error {
	var failed error
	for n > 0 {
		before := n
		_ = s.conn.SetWriteDeadline(time.Now().Add(s.p.cfg.Idle)) // fails on a closed connection, as the write does
		err := s.raw.Write(func(fd uintptr) bool {
			for n > 0 {
				m, err := splice(p.r, int(fd), n)
				if err != nil {
					failed = err
					return err != syscall.EAGAIN
				}
				n -= m
			}
			failed = nil
			return true
		})
		switch {
		case err == nil && failed != nil:
			return failed
		case err != nil && (n == before || !errors.Is(err, os.ErrDeadlineExceeded)):
			return s.wrote(err)
		}
	}
	return nil
}

func splice(from, to int, n int64) (int64, error) {
	for {
		m, err := unix.Splice(from, nil, to, nil, int(min(n, 1<<30)), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != syscall.EINTR {
			return max(m, 0), err
		}
	}
}
