package proxy

import (
	"math"
	mrand "math/rand/v2"
	"testing"
	"time"
)

// server is a station of some workers with a queue before them, in simulated time. Without workers, it does
// all at once.
type server struct {
	workers int
	service time.Duration
	free    []int64 // when each worker is free
	rnd     *mrand.Rand
}

func newServer(workers int, service time.Duration) *server {
	return &server{workers: workers, service: service, free: make([]int64, workers), rnd: mrand.New(mrand.NewPCG(1, 2))}
}

// take serves a request that comes at now, and says when it is done.
func (s *server) take(now int64) (done int64) {
	took := int64(float64(s.service) * (0.8 + 0.4*s.rnd.Float64()))
	if s.workers == 0 {
		return now + took
	}
	first := 0
	for i, at := range s.free {
		if at < s.free[first] {
			first = i
		}
	}
	s.free[first] = max(now, s.free[first]) + took
	return s.free[first]
}

// drive has clients call the server, each again as soon as it is answered, through a limiter; those
// above the limit wait for a millisecond. It returns the limit and the slowest answer of the last second.
func drive(l *limiter, s *server, clients int, from, until int64) (limit int64, slowest time.Duration) {
	type call struct{ begun, done int64 }
	var calls []call
	for now := from; now < until; now += int64(time.Millisecond) {
		kept := calls[:0]
		for _, c := range calls {
			if c.done > now {
				kept = append(kept, c)
				continue
			}
			l.note(time.Duration(c.done-c.begun), true, int64(len(calls)), now)
			if now > until-int64(time.Second) {
				slowest = max(slowest, time.Duration(c.done-c.begun))
			}
		}
		calls = kept
		for len(calls) < clients && int64(len(calls)) < l.limit.Load() {
			calls = append(calls, call{now, s.take(now)})
		}
	}
	return l.limit.Load(), slowest
}

func newLimiter() *limiter {
	l := new(limiter)
	l.limit.Store(limitStart)
	return l
}

// A server with 40 workers that gets 800 requests at once would take 20 times as long for each. The limit
// falls until answers take about twice what they took before, and the server is still busy.
func TestLimitFallsUnderOverload(t *testing.T) {
	l, s := newLimiter(), newServer(40, 20*time.Millisecond)
	end := 5 * int64(time.Second)
	if limit, slowest := drive(l, s, 30, 0, end); limit != limitStart || slowest > 30*time.Millisecond {
		t.Fatalf("in good times: limit %d, slowest %v", limit, slowest)
	}
	limit, slowest := drive(l, s, 800, end, end+10*int64(time.Second))
	if limit < 40 || limit > 200 || slowest > 120*time.Millisecond {
		t.Errorf("under overload: limit %d, slowest %v", limit, slowest)
	}
	limit, _ = drive(l, s, 30, end+10*int64(time.Second), end+40*int64(time.Second))
	if limit < limitStart {
		t.Errorf("long after: limit %d", limit)
	}
}

// What is merely used a lot, and answers as fast as ever, is not limited.
func TestLimitRisesWhileUsed(t *testing.T) {
	l, s := newLimiter(), newServer(0, 20*time.Millisecond)
	if limit, _ := drive(l, s, 3000, 0, 30*int64(time.Second)); limit < 3000 {
		t.Errorf("limit %d of 3000 that go well", limit)
	}
}

// Whatever was measured, the limit stays in its bounds, falls at most by half (to what is in use), and
// rises at most by its root.
func TestLimitProperties(t *testing.T) {
	rnd := mrand.New(mrand.NewPCG(3, 4))
	for range 200_000 {
		limit := limitFloor + rnd.Int64N(limitLast-limitFloor)
		w := window{
			fastest: rnd.Int64N(1 << rnd.IntN(40)), most: rnd.Int64N(1 << rnd.IntN(18)),
			answers: rnd.Int32N(10_000), late: rnd.Int32N(1 << rnd.IntN(12)),
		}
		normal := rnd.Int64N(1 << rnd.IntN(40))
		next := w.next(limit, normal)
		switch {
		case next < limitFloor || next > limitLast:
			t.Fatalf("%+v: from %d to %d", w, limit, next)
		case next < limit && float64(next) < math.Floor(float64(max(limitFloor, min(limit, w.most)))/2) && next > limitFloor:
			t.Fatalf("%+v: fell from %d to %d", w, limit, next)
		case float64(next) > float64(limit)+math.Sqrt(float64(limit)):
			t.Fatalf("%+v: rose from %d to %d", w, limit, next)
		case next < limit && w.most <= limitFloor:
			t.Fatalf("%+v: fell from %d to %d with nothing to do", w, limit, next)
		}
		if d := w.drift(normal); d < min(normal, max(w.fastest, 0)) && w.fastest > 0 || d > max(normal, w.fastest) {
			t.Fatalf("%+v: usual from %d to %d", w, normal, d)
		}
	}
}

// A mix of quick and slow requests is no overload: the quick ones are as quick as ever.
func TestLimitIgnoresAMix(t *testing.T) {
	l := newLimiter()
	for now := int64(0); now < 20*int64(time.Second); now += int64(5 * time.Millisecond) {
		l.note(2*time.Millisecond, true, 300, now)
		if now > 10*int64(time.Second) {
			for range 5 {
				l.note(4*time.Second, true, 300, now)
			}
		}
	}
	if l.limit.Load() < limitStart {
		t.Errorf("limit %d", l.limit.Load())
	}
}

func TestLimitFallsWhenAttemptsTimeOut(t *testing.T) {
	l := newLimiter()
	for now := int64(0); now < 20*int64(time.Second); now += int64(10 * time.Millisecond) {
		l.note(time.Second, false, 800, now)
	}
	if l.limit.Load() > 100 {
		t.Errorf("limit %d", l.limit.Load())
	}
}
