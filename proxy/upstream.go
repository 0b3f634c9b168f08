package proxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shoalrun/shoal/wire/h1"
)

// maxKept bounds the kept-alive connections of one pool; keepIdle is how long they wait.
const (
	maxKept  = 1024
	keepIdle = 90 * time.Second
	// writeTime is how long an upstream may take nothing of a request that it has begun to read.
	writeTime = time.Minute
)

// pool keeps the idle connections to one port of an endpoint, the last used first.
type pool struct {
	endpoint *endpoint
	port     uint16
	caller   string
	address  string

	mu   sync.Mutex // guards idle
	idle []*upstream
}

func (p *pool) get() *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := len(p.idle); n > 0; n = len(p.idle) {
		u := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		if !u.dead.Load() {
			return u
		}
		u.close()
	}
	return nil
}

// put keeps u for the next exchange, unless its endpoint drains.
func (p *pool) put(u *upstream) {
	u.used = true
	u.since = u.pool.endpoint.p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) >= maxKept || u.dead.Load() || p.endpoint.draining.Load() || p.endpoint.p.stopping.Load() {
		u.close()
		return
	}
	p.idle = append(p.idle, u)
}

// prune closes what has been idle since before.
func (p *pool) prune(before time.Time) {
	limit := int64(before.Sub(p.endpoint.p.epoch))
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.idle[:0]
	for _, u := range p.idle {
		if u.since < limit || u.dead.Load() {
			u.close()
			continue
		}
		kept = append(kept, u)
	}
	clear(p.idle[len(kept):])
	p.idle = kept
}

// upstream is a connection to an endpoint. One exchange has it at a time.
type upstream struct {
	net.Conn
	raw   syscall.RawConn // nil: served by Conn alone
	pool  *pool
	watch int32
	since int64       // when it became idle: nanoseconds since the proxy's epoch
	used  bool        // carried an exchange before
	dead  atomic.Bool // the other side has closed
	armed time.Time   // the read deadline that is set; zero: none

	// One round trip. step and look are made once, so that none allocates.
	step    func(fd uintptr) bool
	look    func(fd uintptr)
	spoke   bool // what look found: bytes, or the end
	out, in []byte
	sent    int // bytes of the request that were written
	n       int
	err     error
}

func (p *Proxy) newUpstream(c net.Conn, pl *pool) *upstream {
	u := &upstream{Conn: c, raw: rawConn(c), pool: pl, watch: -1}
	if u.raw == nil {
		return u
	}
	u.step, u.look = u.turn, u.peek
	u.watch = p.watch.hangup(u.raw, u.hungUp)
	return u
}

// hungUp: the other side closed. Whoever waits looks again; a wait that was for something else goes on.
func (u *upstream) hungUp() {
	u.dead.Store(true)
	_ = u.SetReadDeadline(longAgo) // fails only on a closed connection
}

func (u *upstream) close() {
	u.pool.endpoint.p.watch.forget(u.watch)
	u.Close()
}

// errUnasked: something came on a kept-alive connection while nobody had asked. What comes next cannot be told
// from an answer. roundTrip finds that out from what it reads, since it only reads once something comes behind the
// request: then there is more than one answer. Who writes first and reads later looks with quiet.
var errUnasked = errors.New("bytes that nobody asked for")

const unasked = "sent bytes that nobody had asked for, so that its answer could not be told from them"

// plausible looks at what came behind an answer's head, before any of it goes to the caller.
func (u *upstream) plausible(body h1.Body, rest []byte) error {
	n, err := body.Take(rest)
	if err == nil && body.Done() && u.unasked(rest[n:]) {
		return errUnasked
	}
	return err
}

// unasked reports whether another answer begins behind a whole one. Other bytes there are a body that HEAD, 204
// and 304 must not have, and are dropped with the connection.
func (u *upstream) unasked(behind []byte) bool {
	const begins = "HTTP/"
	n := min(len(behind), len(begins))
	return u.used && n > 0 && string(behind[:n]) == begins[:n]
}

// quiet reports whether nothing has come on an idle connection, as far as the system tells; where it tells
// nothing (raw is nil), it counts as quiet.
func (u *upstream) quiet() bool {
	if u.raw == nil {
		return true
	}
	u.spoke = true
	_ = u.raw.Control(u.look) // fails on a closed connection
	return !u.spoke
}

func (u *upstream) peek(fd uintptr) { u.spoke = rawPeek(fd) }

// interrupt wakes who waits for u.
func (u *upstream) interrupt() { _ = u.SetReadDeadline(longAgo) }

var longAgo = time.Unix(1, 0)

// arm makes reads end at until. A deadline that is already set and comes earlier stays: who it
// wakes looks at the clock and sets the right one, which is cheaper than setting one per exchange. It
// reports whether it set one: it may have undone an interrupt then.
func (u *upstream) arm(until time.Time) bool {
	if u.armed.IsZero() && until.IsZero() || !u.armed.IsZero() && (until.IsZero() || !u.armed.After(until)) {
		return false
	}
	u.armed = until
	_ = u.SetReadDeadline(until)
	return true
}

// again decides what a wait that a deadline ended was ended for.
func (u *upstream) again(x *exchange, until time.Time) error {
	if !until.IsZero() && !time.Now().Before(until) {
		u.armed = longAgo
		return errTimeout
	}
	u.armed = until
	_ = u.SetReadDeadline(until)
	if x.left() { // looked at after the deadline is set: the one who interrupts does it the other way round
		return errGone
	}
	return nil
}

// roundTrip writes out and reads the first bytes of what comes back, in one wait: the poller was
// reset before the write, so that no edge is lost and no read is tried that could only fail.
func (u *upstream) roundTrip(x *exchange, out, in []byte) (int, error) {
	if u.raw == nil {
		return u.plainRoundTrip(x, out, in)
	}
	u.out, u.in, u.n, u.err = out, in, 0, nil
	if u.arm(x.deadline) && x.left() {
		return 0, errGone
	}
	for {
		err := u.raw.Read(u.step)
		switch {
		case err == nil:
			return u.n, u.err
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, err
		}
		if err := u.again(x, x.deadline); err != nil {
			return 0, err
		}
	}
}

// turn is one call of the poller's: the first writes, the later ones read.
func (u *upstream) turn(fd uintptr) bool {
	if len(u.out) > 0 {
		return u.send(fd)
	}
	n, err := rawRead(fd, u.in)
	if err == errAgain {
		return false
	}
	u.n, u.err = n, err
	return true
}

func (u *upstream) send(fd uintptr) (over bool) {
	n, err := rawWrite(fd, u.out)
	u.sent += n
	if err == nil && n < len(u.out) {
		err = writeAll(u.Conn, u.out[n:], writeTime)
		u.sent = len(u.out)
	}
	u.out, u.err = nil, err
	return err != nil
}

func (u *upstream) plainRoundTrip(x *exchange, out, in []byte) (int, error) {
	if err := u.write(x, out); err != nil {
		return 0, err
	}
	return u.read(x, in, x.deadline)
}

// read reads more of an answer.
func (u *upstream) read(x *exchange, p []byte, until time.Time) (int, error) {
	if u.arm(until) && x.left() {
		return 0, errGone
	}
	for {
		n, err := u.Conn.Read(p)
		if n > 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := u.again(x, until); err != nil {
			return 0, err
		}
	}
}

// unseen reports whether the application provably saw nothing of the request that failed on u.
func (u *upstream) unseen() bool {
	if u.sent == 0 {
		return true
	}
	return u.raw != nil && unacknowledged(u.raw) >= u.sent
}
