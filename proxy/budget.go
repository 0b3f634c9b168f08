package proxy

import (
	"sync"
	"time"
)

// budget bounds the retries of one callee, so that a failing service is not called more because it
// fails: to a fifth of its requests, and ten a second where those are few. What is not used is kept for
// ten seconds. Ratio, minimum and time are those of Finagle's RetryBudget. Safe for concurrent use.
type budget struct {
	mu     sync.Mutex // guards all below
	tokens float64
	before int64  // nanoseconds since the proxy's epoch
	begun  uint32 // of the callee's traffic, then
}

const (
	budgetRatio   = 0.2
	budgetMinimum = 10 // a second
	budgetWindow  = 10 * time.Second
)

func newBudget(now int64) budget {
	return budget{tokens: budgetMinimum * budgetWindow.Seconds(), before: now}
}

// take reports whether one more retry may be made at now, when begun requests have begun in all. Requests
// are counted when somebody asks: what was earned longer ago than the window is forgotten.
func (b *budget) take(now int64, begun uint32) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	elapsed := max(0, time.Duration(now-b.before))
	kept := max(0, 1-float64(elapsed)/float64(budgetWindow))
	recent := 1.0 // of the requests, the share that began within the window
	if elapsed > budgetWindow {
		recent = float64(budgetWindow) / float64(elapsed)
	}
	b.tokens = b.tokens*kept + budgetRatio*recent*float64(begun-b.begun) +
		budgetMinimum*min(elapsed, budgetWindow).Seconds()
	b.before, b.begun = max(now, b.before), begun
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
