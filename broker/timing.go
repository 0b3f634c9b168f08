package broker

import (
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// timingsMost is of how many commit groups of a class it is remembered how long they were written.
const timingsMost = 1024

// timings are those of one durability class. Safe for concurrent use.
type timings struct {
	mu   sync.Mutex
	last [timingsMost]timing
	next int
}

type timing struct {
	group time.Time // of its commit, which is its own
	took  time.Duration
}

// committed notes how long groups were written, together.
func (b *Broker) committed(class fleet.Durability, groups []*group, took time.Duration) {
	t := &b.timings[laneOf(class)]
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, g := range groups {
		t.last[t.next%timingsMost] = timing{g.batch.time, took}
		t.next++
		b.config.Committed(class, len(g.batch.records), took)
	}
}

// took is how long the group of that time was written; 0 where that is forgotten.
func (b *Broker) took(class fleet.Durability, group time.Time) time.Duration {
	t := &b.timings[laneOf(class)]
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, one := range t.last {
		if one.group.Equal(group) {
			return one.took
		}
	}
	return 0
}
