package sidecar

import (
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// ports are those of this host that applications in explicit mode were given. An application listens
// only some time after that: until it is released, other fleets do not hand its port out.
type ports struct {
	mu    sync.Mutex // guards taken
	taken map[uint16]io.Closer
}

func newPorts() *ports { return &ports{taken: map[uint16]io.Closer{}} }

// take returns the port that an application declares where that is free, so that one which does not
// look at PORT works as long as it is alone, and otherwise some free port; 0 where there is none.
func (p *ports) take(wanted uint16) uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tryLocked(wanted) {
		return wanted
	}
	for range 1000 {
		if n := somePort(); p.tryLocked(n) {
			return n
		}
	}
	return 0
}

func (p *ports) tryLocked(n uint16) bool {
	if _, taken := p.taken[n]; taken {
		return false
	}
	claim, ok := claimPort(n)
	if !ok {
		return false
	}
	if !free(n) {
		_ = claim.Close()
		return false
	}
	p.taken[n] = claim
	return true
}

// reserve notes what an adopted application was given. Its claim may still be with the process that
// launched it; by the time that one ends, the application listens.
func (p *ports) reserve(given map[uint16]uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range given {
		p.taken[n], _ = claimPort(n)
	}
}

func (p *ports) release(given map[uint16]uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range given {
		if claim, taken := p.taken[n]; taken {
			_ = claim.Close()
		}
		delete(p.taken, n)
	}
}

func free(port uint16) bool {
	for _, host := range []string{"", "127.0.0.1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// Ports are looked for below those that systems give to outgoing connections (from 32768 on Linux, from
// 49152 elsewhere): one of these may be in use again before an application listens on it.
const (
	firstPort = 20000
	lastPort  = 32767
)

func somePort() uint16 { return firstPort + rand.N[uint16](lastPort-firstPort+1) }

// noClaim stands where nothing is held.
type noClaim struct{}

func (noClaim) Close() error { return nil }
