package proxy

import (
	"testing"
	"time"
)

// The average rises at once and falls slowly; one that nothing refreshes fades.
func TestLatencyPeaks(t *testing.T) {
	var l latency
	now := int64(0)
	step := func(after time.Duration) float64 {
		now += int64(10 * time.Millisecond)
		l.answered(after, now)
		return l.expected(now) - float64(latencyFloor)
	}
	step(time.Millisecond)
	if got := step(time.Second); got != float64(time.Second) {
		t.Errorf("after a peak: %v", time.Duration(got))
	}
	if got := step(time.Millisecond); got < 0.99*float64(time.Second) {
		t.Errorf("right after it: %v", time.Duration(got))
	}
	for range 3000 { // thirty seconds
		step(time.Millisecond)
	}
	if got := l.expected(now); got > float64(5*time.Millisecond) {
		t.Errorf("long after it: %v", time.Duration(got))
	}
	step(time.Second)
	if got := l.expected(now + 10*int64(fadeHalf)); got > float64(3*time.Millisecond) {
		t.Errorf("unused, it does not fade: %v", time.Duration(got))
	}
}

// A place that fails within a microsecond is worse than one that takes most of a second to succeed, and
// the more so the longer it goes on.
func TestLatencyOfFailures(t *testing.T) {
	var good, bad latency
	for now := range int64(10) {
		good.answered(900*time.Millisecond, now)
		bad.failed(time.Microsecond, now)
		if bad.expected(now) <= good.expected(now) {
			t.Errorf("after %d failures: %v, the good one %v", now+1, bad.expected(now), good.expected(now))
		}
	}
	if got := bad.expected(10); got < float64(failureLast) || got > float64(failureLast+time.Second) {
		t.Errorf("after ten failures: %v", time.Duration(got))
	}
}

// Whatever it did, a place is worth a try again within half a minute.
func TestLatencyIsForgiven(t *testing.T) {
	var l latency
	for now := range int64(100) {
		l.failed(time.Minute, now)
	}
	if got := l.expected(100 + int64(20*time.Second)); got > 1.2*float64(latencyFloor) {
		t.Errorf("twenty seconds after: %v", time.Duration(got))
	}
}
