package observe

import (
	"context"
	"slices"

	"github.com/shoalrun/shoal/fleet"
)

// tapBuffer is how many observations a slow reader of a tap may fall behind.
const tapBuffer = 1024

type tap struct {
	services []string
	failures bool
	in       chan fleet.Observation // never closed: writers may still hold it
}

// Tap sends what is recorded from now on until ctx ends, and then closes the channel: only what has
// one of services as caller or callee (none named: everything), and only failures where asked. A
// reader that falls more than 1024 observations behind misses some, which [Recorder.Missed] counts.
// Without taps it costs the data path one atomic load a call; with one, a copy of each match.
func (r *Recorder) Tap(ctx context.Context, services []string, failures bool) <-chan fleet.Observation {
	t := &tap{services: slices.Clone(services), failures: failures, in: make(chan fleet.Observation, tapBuffer)}
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
		}
		select {
		case <-ctx.Done():
			return
		case out <- o:
		}
	}
}

func (t *tap) wants(o *fleet.Observation) bool {
	if t.failures && !o.Failed() && !o.Compared.Differs() {
		return false
	}
	return len(t.services) == 0 || slices.Contains(t.services, o.Caller) || slices.Contains(t.services, o.Callee)
}

func (r *Recorder) offer(taps []*tap, o *fleet.Observation) {
	for _, t := range taps {
		if !t.wants(o) {
			continue
		}
		var s slot
		s.fill(o)
		select {
		case t.in <- s.observation():
		default:
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
