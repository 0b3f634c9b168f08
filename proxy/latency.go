package proxy

import (
	"math"
	"sync/atomic"
	"time"
)

// latency is the peak EWMA of the time that an endpoint takes to an answer's head: it rises at once to what
// is slower, and falls over decayTime to what is faster (Finagle's PeakEwma). A failure counts as an
// answer that took very long, and twice as long each time, so that a place that fails fast does not draw
// the calls of those that work. Two samples at once may lose one of them.
type latency struct {
	average atomic.Uint64 // nanoseconds, a float64's bits
	sampled atomic.Int64  // when: nanoseconds since the proxy's epoch
}

const (
	decayTime    = 5 * time.Second
	fadeHalf     = 500 * time.Millisecond // an average that nothing refreshes halves in it
	latencyFloor = time.Millisecond       // differences far below it say nothing about a place

	failureFirst = time.Second
	failureLast  = time.Minute
)

// answered takes a sample at now.
func (l *latency) answered(after time.Duration, now int64) {
	average, sample := math.Float64frombits(l.average.Load()), float64(after)
	if sample < average {
		elapsed := float64(max(0, now-l.sampled.Load()))
		sample = average + (sample-average)*elapsed/(elapsed+float64(decayTime))
	}
	l.average.Store(math.Float64bits(sample))
	l.sampled.Store(now)
}

// failed takes a failure at now.
func (l *latency) failed(after time.Duration, now int64) {
	twice := time.Duration(2 * math.Float64frombits(l.average.Load()))
	l.answered(max(after, min(max(twice, failureFirst), failureLast)), now)
}

// forget is for a place that begins anew.
func (l *latency) forget() { l.average.Store(0) }

// expected is the average at now. One that nothing refreshes fades within seconds, so that a place that was
// slow, or failed, is asked again.
func (l *latency) expected(now int64) float64 {
	idle := float64(max(0, now-l.sampled.Load()))
	return math.Float64frombits(l.average.Load())*math.Exp2(-idle/float64(fadeHalf)) + float64(latencyFloor)
}
