package observe

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// cacheLine keeps what different processors write apart: 64 bytes, fetched in pairs on amd64.
const cacheLine = 128

// maxStripes bounds the memory of an edge on large machines; more writers than that share.
const maxStripes = 8

// stripes tells a goroutine which stripe of a counter to write to, so that processors rarely write
// to the same cache line. A [sync.Pool] keeps its items per processor, which is all that is used
// here: an item carries nothing but its number.
type stripes struct {
	n    uint32 // a power of two
	next atomic.Uint32
	pool sync.Pool
}

type token struct {
	stripe uint32
	_      [cacheLine - 4]byte
}

func newStripes() *stripes {
	n := uint32(1)
	for n < uint32(runtime.GOMAXPROCS(0)) && n < maxStripes {
		n *= 2
	}
	s := &stripes{n: n}
	s.pool.New = func() any { return &token{stripe: (s.next.Add(1) - 1) & (s.n - 1)} }
	return s
}

func (s *stripes) pick() uint32 {
	t := s.pool.Get().(*token)
	stripe := t.stripe
	s.pool.Put(t)
	return stripe
}
