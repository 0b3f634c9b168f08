package proxy

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shoalrun/shoal/wire/h1"
)

// session is one client connection that speaks HTTP/1.1. One goroutine has it at a time.
type session struct {
	p      *Proxy
	from   *listener
	target target // of every request, where the listener's aim says so
	conn   net.Conn
	raw    syscall.RawConn // nil: served by conn alone
	watch  int32
	fd     uintptr // valid while inside
	inside bool    // within the poller's callback: no second read may wait on conn

	in      *buffer // nil while nothing is held
	scanned int     // bytes of in that were searched for the end of a head
	since   time.Time
	armed   time.Time // the read deadline that is set
	served  bool      // an exchange was done
	fresh   bool      // never parked
	ends    time.Time // until then it waits for one last request; zero: it goes on
	next    next

	x     exchange
	req   h1.Request
	res   h1.Response
	head  []byte // of the request, in the buffer
	body  h1.Body
	first []byte // of the body: what came with the head
	taken int    // bytes of in that head and first are
	pump  *pump  // of a body that came later

	table *table // that route is of
	route *route
	host  string // that route is for, where requests name it

	keep    bool // the connection goes on after this exchange
	begun   bool // bytes of an answer were written
	broke   bool // in the middle of an answer, and the connection ends by a reset
	gone    atomic.Bool
	stalled atomic.Bool // what exchange.stalled points to
	closing atomic.Bool
	waiting atomic.Pointer[upstream] // whom this session waits for
	races   [2]atomic.Pointer[race]  // or, where the exchange is hedged, what waits
	mesh    *meshCall                // to other nodes; nil before the first
	calling atomic.Pointer[meshCall] // mesh, while the session waits for it
}

// next is what becomes of a session.
type next uint8

const (
	more   next = iota // bytes must come
	ready              // a request's head is there
	slow               // the exchange needs the connection itself: a body, a tunnel
	over               // the connection ends
	parked             // it waits for its next request without a goroutine
	http2              // it speaks HTTP/2
)

// serveHTTP serves requests on c until it ends or is parked. early holds bytes that were read already.
func (l *listener) serveHTTP(c net.Conn, to target, early []byte) {
	s := l.session(c, to)
	s.fresh = true
	if len(early) > 0 {
		s.buffer().w = copy(s.in.b, early)
	}
	s.run()
}

func (l *listener) session(c net.Conn, to target) *session {
	return &session{p: l.p, from: l, target: to, conn: c, raw: rawConn(c), watch: -1, since: time.Now()}
}

func (s *session) run() {
	l := s.from
	if s.raw != nil {
		s.watch = s.p.watch.hangup(s.raw, s.left)
	}
	if !l.keep(s) {
		s.closing.Store(true)
		s.lastCall(s.since)
	}
	defer l.drop(s)
	switch s.serve() {
	case parked:
		s.park()
	case http2:
		s.p.watch.forget(s.watch)
		s.serveHTTP2()
	default:
		s.close()
	}
}

// left: the caller has closed its side. Who waits for an upstream on its behalf waits no longer.
func (s *session) left() {
	s.gone.Store(true)
	if u := s.waiting.Load(); u != nil {
		u.interrupt()
	}
	for n := range s.races {
		if r := s.races[n].Load(); r != nil {
			r.leave()
		}
	}
	if c := s.calling.Load(); c != nil {
		c.interrupt()
	}
}

// hurry ends the session after its exchange, or at once.
func (s *session) hurry(now bool) {
	s.closing.Store(true)
	if now {
		s.left()
		s.conn.Close()
		return
	}
	_ = s.conn.SetReadDeadline(longAgo) // whoever waits for a request looks at closing
}

func (s *session) close() {
	s.p.watch.forget(s.watch)
	s.conn.Close()
	s.releaseBuffer()
}

func (s *session) buffer() *buffer {
	if s.in == nil {
		s.in = getBuffer()
	}
	return s.in
}

func (s *session) releaseBuffer() {
	if s.in != nil {
		putBuffer(s.in)
		s.in = nil
	}
}

// serve does exchanges until the connection ends, is to be parked, or turns out to speak HTTP/2.
func (s *session) serve() next {
	if s.in != nil {
		s.next = s.serveHeld() // what was read before
	}
	for {
		if s.next == more {
			s.next = s.wait()
		}
		if s.next != slow {
			return s.next
		}
		s.next = over
		if s.exchange() {
			s.next = s.serveHeld()
		}
	}
}

// wait reads requests and does those exchanges that are whole in the buffer.
func (s *session) wait() next {
	for {
		n, err := s.waitOnce()
		switch {
		case err == nil:
			return n
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return over
		}
		if n := s.idle(); n != more {
			return n
		}
	}
}

func (s *session) waitOnce() (next, error) {
	s.arm()
	if s.raw == nil {
		return s.plainWait()
	}
	s.inside = true
	err := s.raw.Read(s.readable)
	s.inside = false
	return s.next, err
}

// readable is the poller's callback, called once per edge: it reads until the socket is drained, and
// whole exchanges are done inside it, so that no read is tried that could only fail.
func (s *session) readable(fd uintptr) (leave bool) {
	s.fd = fd
	for {
		room := s.buffer().room(s.p.cfg.MaxHead + bufferSize)
		n, err := rawRead(fd, room)
		if err == errAgain {
			break
		}
		if err != nil {
			s.next = over
			return true
		}
		s.in.w += n
		if s.next = s.serveHeld(); s.next != more {
			return true
		}
		if n < len(room) {
			break
		}
	}
	if s.in != nil && s.in.r == s.in.w {
		s.releaseBuffer()
	}
	return false
}

func (s *session) plainWait() (next, error) {
	for {
		n, err := s.conn.Read(s.buffer().room(s.p.cfg.MaxHead + bufferSize))
		s.in.w += n
		if n > 0 {
			if next := s.serveHeld(); next != more {
				return next, nil
			}
		}
		if s.in != nil && s.in.r == s.in.w {
			s.releaseBuffer()
		}
		if err != nil {
			return over, err
		}
	}
}

// arm sets the deadline after which an idle session is looked at, unless one is set that comes no
// later than needed.
func (s *session) arm() {
	if s.armed.IsZero() {
		s.armed = time.Now().Add(s.patience())
		_ = s.conn.SetReadDeadline(s.armed)
	}
}

// parkSoon is Config.Park for connections that have just come while there are many.
const parkSoon = 50 * time.Millisecond

// patience is how long the session waits for a request before it is parked. What Go keeps of goroutines and polled
// connections it keeps for good, for as many as there ever were at once; so of a crowd that comes at once nobody keeps
// them for long. Who comes back from there asks more than once, and is left a goroutine for longer.
func (s *session) patience() time.Duration {
	if s.fresh && s.p.crowded.Load() {
		return min(parkSoon, s.p.cfg.Park)
	}
	return s.p.cfg.Park
}

// disarm is for those who read from conn themselves.
func (s *session) disarm() {
	s.armed = time.Time{}
	_ = s.conn.SetReadDeadline(time.Time{})
}

// idle decides about a session whose wait a deadline ended.
func (s *session) idle() next {
	now := time.Now()
	s.armed = time.Time{}
	quiet := now.Sub(s.since)
	switch {
	case s.closing.Load() && s.in == nil:
		return s.lastCall(now)
	case s.in != nil:
		if quiet > s.p.cfg.HeadTime {
			s.reject(&h1.Error{Status: 408, TooLarge: true, Limit: limitHeadTime, Text: "the time for a head is over its limit of " + s.p.cfg.HeadTime.String()})
			return over
		}
	case quiet > s.p.cfg.Idle:
		return over
	case quiet >= s.patience() && s.parkable():
		return parked
	}
	return more
}

// lastCallTime is how long a connection that is to end waits for one more request, which may be under way:
// that one is answered, and told that the connection closes (RFC 9112 section 9.6).
const lastCallTime = time.Second

func (s *session) lastCall(now time.Time) next {
	if s.ends.IsZero() {
		s.ends = now.Add(lastCallTime)
	}
	if !now.Before(s.ends) {
		return over
	}
	s.armed = s.ends // also where it was told to hurry a second time
	_ = s.conn.SetReadDeadline(s.armed)
	return more
}
