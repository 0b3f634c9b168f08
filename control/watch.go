package control

import (
	"context"

	"github.com/shoalrun/shoal/fleet"
)

// publication is the snapshot in force; changed is closed when another takes its place.
type publication struct {
	snapshot *fleet.Snapshot
	changed  chan struct{}
}

// publish puts the current state in force. The caller holds applying, or is New.
func (c *Control) publish() {
	old := c.live.Swap(&publication{snapshot: c.state.compile(), changed: make(chan struct{})})
	if old != nil {
		close(old.changed)
	}
}

// Watch calls each with the snapshot in force (all its services as changed), then after every
// change with the new one and what differs from the one told before. It blocks until ctx ends. A
// watcher that is slow misses versions in between, never a change: what it is told is always the
// difference from what it knows.
func (c *Control) Watch(ctx context.Context, each func(s *fleet.Snapshot, changed []*fleet.Service, removed []string)) {
	var told *fleet.Snapshot
	for ctx.Err() == nil {
		now := c.live.Load()
		changed, removed := Diff(told, now.snapshot)
		each(now.snapshot, changed, removed)
		told = now.snapshot
		select {
		case <-now.changed:
		case <-ctx.Done():
		}
	}
}

// Diff returns the services of now that differ from those of old, and the names that are gone. A
// nil old has no services. Both must come from the same Control, whose versions it compares.
func Diff(old, now *fleet.Snapshot) (changed []*fleet.Service, removed []string) {
	known := make(map[string]uint64)
	if old != nil {
		for _, s := range old.Services {
			known[s.Name] = s.Version
		}
	}
	for _, s := range now.Services {
		if v, ok := known[s.Name]; !ok || v != s.Version {
			changed = append(changed, s)
		}
		delete(known, s.Name)
	}
	if old == nil {
		return changed, nil
	}
	for _, s := range old.Services {
		if _, gone := known[s.Name]; gone {
			removed = append(removed, s.Name)
		}
	}
	return changed, removed
}
