package observe

import (
	"sync/atomic"

	"github.com/shoalrun/shoal/fleet"
)

// Follower reads all that a recorder records, in batches, for those who write it elsewhere. It costs the data path
// nothing: who falls a whole ring behind misses what was written over. One goroutine uses it.
type Follower struct{ lanes []followed }

type followed struct {
	lane    *lane
	seen    uint64 // positions below were read
	settled uint64 // positions below were taken before the last Read, so that their writers are done
}

// Follow returns a follower of what is recorded from now on.
func (r *Recorder) Follow() *Follower {
	f := &Follower{}
	for _, ring := range []*ring{r.all, r.failed} {
		for i := range ring.lanes {
			at := ring.lanes[i].next.Load()
			f.lanes = append(f.lanes, followed{&ring.lanes[i], at, at})
		}
	}
	return f
}

// Read calls each with what was recorded up to the call before and not yet read, lane by lane, where wants lets it:
// wants sees a record without its strings that may be long (RequestID, Path, Attempts), and keeps nothing. missed
// is how many records were written over before they could be read.
func (f *Follower) Read(wants func(*fleet.Observation) bool, each func(fleet.Observation)) (missed uint64) {
	for i := range f.lanes {
		missed += f.lanes[i].read(wants, each)
	}
	return missed
}

func (f *followed) read(wants func(*fleet.Observation) bool, each func(fleet.Observation)) (missed uint64) {
	now, size := f.lane.next.Load(), uint64(len(f.lane.chunks)*chunkSize)
	until := f.settled
	f.settled = now
	if now > size && f.seen < now-size {
		missed = min(now-size, until) - min(f.seen, until)
		f.seen += missed
	}
	for ; f.seen < until; f.seen++ {
		if !f.lane.slot(f.seen).readAt(f.seen+1, wants, each) {
			missed++
		}
	}
	return missed
}

// readAt reads the record that was the nth of its lane. false says that a later one has its place. One that is
// not there at all was written to another slot.
func (s *slot) readAt(nth uint64, wants func(*fleet.Observation) bool, each func(fleet.Observation)) bool {
	for {
		n := s.state.Load()
		if n < 0 {
			return false
		}
		if s.state.CompareAndSwap(n, n+1) {
			break
		}
	}
	defer s.state.Add(-1)
	if s.nth == nth && wants(&s.obs) {
		each(s.observation())
	}
	return s.nth <= nth
}

// Tally counts what was written elsewhere, and what was not, because that is too slow. It is safe for concurrent use.
type Tally struct{ Written, Dropped atomic.Uint64 }
