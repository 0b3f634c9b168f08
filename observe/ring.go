package observe

import (
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/shoalrun/shoal/fleet"
)

const (
	chunkSize   = 128 // slots that are allocated together, when the first of them is needed
	inlineID    = 48
	inlinePath  = 112
	inlineState = 64
	inlineTries = 2
	maxPath     = 1024 // longer paths are cut: a record's size is bounded
	maxProbe    = 8    // slots that a writer tries before it gives a record up
)

// ring keeps the last records, in one lane per stripe. A writer takes the next slot of its lane; if
// a reader (or a writer that was overtaken by a whole lap) has it, the one after that. Writers so
// never wait, and what a slot holds is only ever touched by who has taken it, which is also what
// lets the race detector follow it.
type ring struct {
	pick    *stripes
	lanes   []lane
	dropped atomic.Uint64
}

type lane struct {
	next   atomic.Uint64
	_      [cacheLine]byte
	chunks []atomic.Pointer[chunk]
	_      [cacheLine]byte
}

type chunk [chunkSize]slot

// slot holds one record. state is 0 when free, -1 while written, n > 0 while n readers copy it.
type slot struct {
	state    atomic.Int32
	used     bool
	nth      uint64 // of its lane's records, from 1
	idLen    uint8
	pathLen  uint8
	tries    uint8
	stateLen uint8
	id       [inlineID]byte
	path     [inlinePath]byte
	states   [inlineState]byte
	attempts [inlineTries]fleet.Attempt
	obs      fleet.Observation // RequestID, Path, TraceState and Attempts are in it only where too long for the arrays
}

func newRing(s *stripes, size int) *ring {
	r := &ring{pick: s, lanes: make([]lane, s.n)}
	perLane := max(size/int(s.n)/chunkSize, 1)
	for i := range r.lanes {
		r.lanes[i].chunks = make([]atomic.Pointer[chunk], perLane)
	}
	return r
}

func (r *ring) put(o *fleet.Observation) {
	l := &r.lanes[r.pick.pick()]
	for range maxProbe {
		nth := l.next.Add(1)
		s := l.slot(nth - 1)
		if !s.state.CompareAndSwap(0, -1) {
			continue
		}
		s.fill(o)
		s.nth = nth
		s.state.Store(0)
		return
	}
	r.dropped.Add(1)
}

func (l *lane) slot(position uint64) *slot {
	i := position % uint64(len(l.chunks)*chunkSize)
	p := &l.chunks[i/chunkSize]
	c := p.Load()
	if c == nil {
		p.CompareAndSwap(nil, new(chunk))
		c = p.Load()
	}
	return &c[i%chunkSize]
}

// each calls yield with every slot that holds a record, taken for reading.
func (r *ring) each(yield func(*slot)) {
	for i := range r.lanes {
		for j := range r.lanes[i].chunks {
			c := r.lanes[i].chunks[j].Load()
			if c == nil {
				continue
			}
			for k := range c {
				c[k].read(yield)
			}
		}
	}
}

func (s *slot) read(yield func(*slot)) {
	for {
		n := s.state.Load()
		if n < 0 {
			return // about to be another record
		}
		if s.state.CompareAndSwap(n, n+1) {
			break
		}
	}
	if s.used {
		yield(s)
	}
	s.state.Add(-1)
}

// fill copies o. What may be a view of a buffer is copied byte by byte; see [Recorder.Record].
func (s *slot) fill(o *fleet.Observation) {
	s.obs = *o
	s.used, s.idLen, s.pathLen, s.tries = true, 0, 0, 0
	if len(o.RequestID) <= inlineID {
		s.idLen = uint8(copy(s.id[:], o.RequestID))
		s.obs.RequestID = ""
	} else {
		s.obs.RequestID = strings.Clone(o.RequestID)
	}
	if len(o.Path) <= inlinePath {
		s.pathLen = uint8(copy(s.path[:], o.Path))
		s.obs.Path = ""
	} else {
		s.obs.Path = cut(o.Path, maxPath)
	}
	s.obs.Method = method(o.Method)
	s.fillRare(o)
}

func (s *slot) fillRare(o *fleet.Observation) {
	if s.stateLen = 0; len(o.TraceState) <= inlineState {
		s.stateLen = uint8(copy(s.states[:], o.TraceState))
		s.obs.TraceState = ""
	} else {
		s.obs.TraceState = strings.Clone(o.TraceState)
	}
	if o.Learned != nil {
		learned := *o.Learned
		s.obs.Learned = &learned
	}
	if len(o.Attempts) <= inlineTries {
		s.tries = uint8(copy(s.attempts[:], o.Attempts))
		s.obs.Attempts = nil
		return
	}
	s.obs.Attempts = append([]fleet.Attempt(nil), o.Attempts...)
}

func (s *slot) is(requestID string) bool {
	if s.idLen > 0 {
		return string(s.id[:s.idLen]) == requestID
	}
	return s.obs.RequestID == requestID
}

// observation returns a copy that shares nothing with the slot that can change.
func (s *slot) observation() fleet.Observation {
	o := s.obs
	if s.idLen > 0 {
		o.RequestID = string(s.id[:s.idLen])
	}
	if s.pathLen > 0 {
		o.Path = string(s.path[:s.pathLen])
	}
	if s.stateLen > 0 {
		o.TraceState = string(s.states[:s.stateLen])
	}
	if s.tries > 0 {
		o.Attempts = append([]fleet.Attempt(nil), s.attempts[:s.tries]...)
	}
	return o
}

// cut copies at most n bytes of s, without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return strings.Clone(s)
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// method returns a string that is no view of a buffer, without allocating for the methods of RFC
// 9110 section 9.3 and PATCH (RFC 5789).
func method(m string) string {
	switch m {
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "PATCH":
		return "PATCH"
	case "DELETE":
		return "DELETE"
	case "HEAD":
		return "HEAD"
	case "OPTIONS":
		return "OPTIONS"
	case "CONNECT":
		return "CONNECT"
	}
	return cut(m, inlineID)
}
