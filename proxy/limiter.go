package proxy

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// limiter finds out how many exchanges an endpoint can work on at once, from what a sender can see.
//
// In each window it takes the fastest answer, which no queue of the endpoint delayed less: when even that
// one took far longer than the fastest usually do, requests stand in line inside the endpoint, and the
// limit falls towards what is in progress times usual over fastest. It also falls when many attempts of a
// window time out. Otherwise it rises by its square root while it is used. This is TCP Vegas (Brakmo and
// Peterson, 1995) as Netflix's concurrency-limits (VegasLimit, Gradient2Limit) and Envoy's adaptive
// concurrency filter apply it to requests; but the limit starts high and falls by evidence, since a
// service that was never overloaded must not notice it.
type limiter struct {
	limit   atomic.Int64
	ends    atomic.Int64 // the window: nanoseconds since the proxy's epoch
	fastest atomic.Int64 // answer in it, nanoseconds; 0: none yet
	most    atomic.Int64 // work in progress in it
	answers atomic.Int32 // in it
	late    atomic.Int32 // attempts in it that ended by timeout

	mu     sync.Mutex   // held by who ends a window
	normal atomic.Int64 // nanoseconds: what the fastest answer of a window usually takes; 0: unknown
}

const (
	limitStart = 1000
	limitFloor = 20 // below it nothing is limited, whatever is measured
	limitLast  = 100_000

	limiterWindow  = 250 * time.Millisecond
	limiterAnswers = 10 // that a window must have, unless it is eight times as long

	limiterTolerance = 2                    // the fastest answer may take so many times the usual
	limiterNoise     = 5 * time.Millisecond // and so much more
)

// usual is how long the fastest answers usually take.
func (l *limiter) usual() time.Duration { return time.Duration(l.normal.Load()) }

// note counts an attempt: an answer after so much time, or one that came too late.
func (l *limiter) note(after time.Duration, inTime bool, working, now int64) {
	if !inTime {
		l.late.Add(1)
	} else if f := l.fastest.Load(); f == 0 || int64(after) < f {
		l.fastest.Store(max(1, int64(after))) // of two at once the slower may win; the next corrects it
	}
	if working > l.most.Load() {
		l.most.Store(working)
	}
	n := l.answers.Add(1)
	ends := l.ends.Load()
	if now < ends || n < limiterAnswers && now < ends+7*int64(limiterWindow) {
		return
	}
	l.turn(now)
}

// turn ends a window, unless somebody else does.
func (l *limiter) turn(now int64) {
	if !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	if now < l.ends.Load() {
		return
	}
	w := window{fastest: l.fastest.Swap(0), most: l.most.Swap(0), answers: l.answers.Swap(0), late: l.late.Swap(0)}
	l.ends.Store(now + int64(limiterWindow))
	normal := l.normal.Load()
	l.limit.Store(w.next(l.limit.Load(), normal))
	l.normal.Store(w.drift(normal))
}

// window is what one window saw.
type window struct {
	fastest, most int64
	answers, late int32
}

// next is the limit after w.
func (w window) next(limit, normal int64) int64 {
	if g := w.gradient(normal); g < 1 {
		if w.most <= limitFloor {
			return limit
		}
		return max(limitFloor, int64(float64(min(limit, w.most))*g))
	}
	if limit >= limitStart && 2*w.most < limit {
		return limit // not used, so that nothing is known of it
	}
	return min(limitLast, limit+int64(math.Sqrt(float64(limit))))
}

// gradient is what the limit has to be multiplied with: 1 where nothing speaks against it, at least 1/2.
func (w window) gradient(normal int64) float64 {
	g := 1.0
	if 10*w.late > w.answers {
		g = 0.9
	}
	slow := limiterTolerance*normal + int64(limiterNoise)
	if normal > 0 && w.fastest > slow {
		g = min(g, max(0.5, float64(slow)/float64(w.fastest)))
	}
	return g
}

// drift is what the fastest answer usually takes, after w: it follows slowly upwards, so that what has
// become normal is, and fast downwards.
func (w window) drift(normal int64) int64 {
	switch {
	case w.fastest == 0:
		return normal
	case normal == 0:
		return w.fastest
	case w.fastest < normal:
		return normal + (w.fastest-normal)/4
	}
	return normal + (w.fastest-normal)/128
}
