package observe

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/shoalrun/shoal/fleet"
)

// tapBuffer is how many observations a slow reader of a tap may fall behind.
const tapBuffer = 1024

type tap struct {
	filter fleet.Filter
	missed atomic.Uint64
	in     chan fleet.Observation // never closed: writers may still hold it
}

// Tap sends what is recorded from now on, as far as f lets it pass, until ctx ends, and then closes the channel. A
// reader that falls more than 1024 observations behind misses some, which the next one that it gets, and
// [Recorder.Missed], count.
// Without taps it costs the data path one atomic load a call; with one, a copy of each match.
func (r *Recorder) Tap(ctx context.Context, f fleet.Filter) <-chan fleet.Observation {
	t := &tap{filter: f, in: make(chan fleet.Observation, tapBuffer)}
	r.addTap(t)
	out := make(chan fleet.Observation)
	go func() {
		defer close(out)
		defer r.removeTap(t)
		t.forward(ctx, out)
	}()
	return out
}

// Missed returns how many observations taps dropped because their readers were slow.
func (r *Recorder) Missed() uint64 { return r.missed.Load() }

func (t *tap) forward(ctx context.Context, out chan<- fleet.Observation) {
	for {
		var o fleet.Observation
		select {
		case <-ctx.Done():
			return
		case o = <-t.in:
			o.Missed = t.missed.Swap(0)
		}
		select {
		case <-ctx.Done():
			return
		case out <- o:
		}
	}
}

func (r *Recorder) offer(taps []*tap, o *fleet.Observation) {
	for _, t := range taps {
		if !t.filter.Matches(o) {
			continue
		}
		var s slot
		s.fill(o)
		select {
		case t.in <- s.observation():
		default:
			t.missed.Add(1)
			r.missed.Add(1)
		}
	}
}

func (r *Recorder) addTap(t *tap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var taps []*tap
	if old := r.taps.Load(); old != nil {
		taps = slices.Clone(*old)
	}
	taps = append(taps, t)
	r.taps.Store(&taps)
}

func (r *Recorder) removeTap(t *tap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	taps := slices.DeleteFunc(slices.Clone(*r.taps.Load()), func(u *tap) bool { return u == t })
	if len(taps) == 0 {
		r.taps.Store(nil)
		return
	}
	r.taps.Store(&taps)
}
