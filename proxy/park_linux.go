package proxy

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// parking holds the connections that wait for a request without a goroutine, a buffer or any of the
// structures that Go keeps per connection: a descriptor each, and where it came from.
type parking struct {
	crowds chan struct{} // tells of every crowd that was parked

	mu    sync.Mutex // guards all below
	spots map[*spot]struct{}
	count int // that were parked, ever
}

func newParking() parking { return parking{crowds: make(chan struct{}, 1)} }

// spot is one parked connection.
type spot struct {
	from   *listener
	target target
	fd     int32
	since  int64 // seconds since the proxy's epoch
}

func (s *session) parkable() bool { return s.raw != nil }

// park gives the session's descriptor to the watcher and everything else back. The first byte that
// comes, or the end of the connection, makes a session of it again.
func (s *session) park() {
	sp := &spot{from: s.from, target: s.target, fd: -1, since: s.p.now() / int64(time.Second)}
	err := s.raw.Control(func(fd uintptr) {
		if dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			sp.fd = int32(dup)
		}
	})
	s.p.watch.remove(s.watch)
	s.watch = -1
	s.close()
	if err == nil && sp.fd >= 0 {
		s.p.parking.add(s.p, sp)
	}
}

func (pk *parking) add(p *Proxy, sp *spot) {
	pk.mu.Lock()
	if pk.spots == nil {
		pk.spots = map[*spot]struct{}{}
	}
	pk.spots[sp] = struct{}{}
	if pk.count++; pk.count%crowd == 0 {
		select {
		case pk.crowds <- struct{}{}:
		default: // it is known that there are many
		}
	}
	err := p.watch.add(sp.fd, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLONESHOT, sp.resume)
	pk.mu.Unlock()
	if err != nil || sp.from.released() {
		sp.resume() // it cannot wait here
	}
}

// takeLocked takes sp out; false where another was first.
func (pk *parking) takeLocked(p *Proxy, sp *spot) bool {
	if _, ok := pk.spots[sp]; !ok {
		return false
	}
	delete(pk.spots, sp)
	p.watch.remove(sp.fd) // the connection may live on, under another descriptor
	return true
}

// resume makes a session of the connection again, unless somebody else did: something happened on it.
func (sp *spot) resume() {
	p := sp.from.p
	p.parking.mu.Lock()
	mine := p.parking.takeLocked(p, sp)
	p.parking.mu.Unlock()
	if !mine {
		return
	}
	if !p.enter() {
		unix.Close(int(sp.fd))
		return
	}
	go func() {
		defer p.leave()
		c, err := fromDescriptor(int(sp.fd))
		if err != nil {
			return // out of descriptors; the connection is closed
		}
		sp.from.session(c, sp.target).run()
	}()
}

// prune closes what has been parked since before.
func (pk *parking) prune(p *Proxy, before time.Time) {
	limit := int64(before.Sub(p.epoch) / time.Second)
	pk.mu.Lock()
	defer pk.mu.Unlock()
	for sp := range pk.spots {
		if sp.since < limit && pk.takeLocked(p, sp) {
			unix.Close(int(sp.fd))
		}
	}
}

// release resumes what came from l, which has ended: each may have one last request under way.
func (pk *parking) release(l *listener) {
	pk.mu.Lock()
	var waiting []*spot
	for sp := range pk.spots {
		if sp.from == l {
			waiting = append(waiting, sp)
		}
	}
	pk.mu.Unlock()
	for _, sp := range waiting {
		sp.resume()
	}
}

// now is how many connections are parked.
func (pk *parking) now() int {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	return len(pk.spots)
}
