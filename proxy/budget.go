package proxy

import (
	"sync"
	"time"
)

// budget bounds the retries of one callee, so that a failing service is not called more because it
// fails. Each retry takes a token; tokens come back at a steady rate up to the size of the bucket.
type budget struct {
	mu     sync.Mutex // guards all below
	used   float64
	before int64 // nanoseconds since the proxy's epoch
}

// At most budgetSize retries at once, and budgetRate a second in the long run.
const (
	budgetSize = 500
	budgetRate = 50
)

// take reports whether one more retry may be made at now.
func (b *budget) take(now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used = max(0, b.used-float64(now-b.before)/float64(time.Second)*budgetRate)
	b.before = now
	if b.used+1 > budgetSize {
		return false
	}
	b.used++
	return true
}
