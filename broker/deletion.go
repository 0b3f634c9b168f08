package broker

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/shoalrun/shoal/fleet"
)

// storedTopic is a topic as it is stored.
type storedTopic struct {
	TopicConfig
	Begins  uint64 `json:"begins,omitempty"`  // offset of its first message: no topic that was deleted before has come so far
	Deleted bool   `json:"deleted,omitempty"` // what it had is still to be removed
}

// Kinds of what stays in the catalog of topics that were deleted.
const (
	kindEnds = "ends" // the one of name endsName: the highest end of all of their logs
	kindVoid = "void" // of a topic: the end of the schedule when it was deleted. What waits there for it from before is void

	endsName = "all"
)

// DeleteTopic removes a topic and all that it has: messages, scheduled ones too, and snapshots. Its subscriptions stay, without a topic. Once
// the catalog says so it is deleted, whatever happens then: what is left to be removed is removed later, and before there is another topic
// of its name.
func (b *Broker) DeleteTopic(ctx context.Context, caller, name string) error {
	b.installing.Lock()
	defer b.installing.Unlock()
	if _, err := b.ownTopic(ctx, caller, name); err != nil {
		return err
	}
	b.mu.Lock()
	c := *b.catalog.topics[name]
	b.mu.Unlock()
	c.Deleted = true
	if err := b.keep(kindTopic, name, &c); err != nil {
		return unsaved(err, "topic %s is not deleted", name)
	}
	b.config.Log.Info("a topic is deleted", "topic", name)
	b.mu.Lock()
	delete(b.catalog.topics, name)
	b.catalog.deleted[name] = &c
	b.mu.Unlock()
	b.topic(name).end()
	if err := b.finishDeletion(context.WithoutCancel(ctx), name); err != nil {
		b.config.Log.Warn("what a deleted topic had is not removed yet, to be tried again", "topic", name, "error", err)
	}
	return nil
}

// end lets a topic take nothing any more.
func (t *topic) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone = true
}

// finishDeletions removes what deleted topics still have. The caller holds b.installing.
func (b *Broker) finishDeletions(ctx context.Context) (failed error) {
	b.mu.Lock()
	names := slices.Sorted(maps.Keys(b.catalog.deleted))
	b.mu.Unlock()
	for _, name := range names {
		b.topic(name).end()
		failed = errors.Join(failed, b.finishDeletion(ctx, name))
	}
	return failed
}

// finishDeletion removes what a deleted topic had, as far as it is there, and then the topic's place in the catalog. The caller holds b.installing.
func (b *Broker) finishDeletion(ctx context.Context, name string) error {
	for _, c := range b.ListSubscriptions(ctx) {
		if c.Topic == name && c.Declared == "" {
			if err := b.orphan(ctx, c); err != nil {
				return err
			}
		}
	}
	if err := b.removeSnapshots(func(s *snapshot) bool { return s.Topic == name }); err != nil {
		return err
	}
	if err := b.voidScheduled(name); err != nil {
		return err
	}
	if err := b.purgeTopic(ctx, name); err != nil {
		return err
	}
	if err := b.erase(kindTopic, name); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.catalog.deleted, name)
	delete(b.topics, name)
	return nil
}

// removeSnapshots removes those for which over is true. The caller holds b.installing.
func (b *Broker) removeSnapshots(over func(*snapshot) bool) error {
	b.mu.Lock()
	var names []string
	for name, s := range b.catalog.snapshots {
		if over(s) {
			names = append(names, name)
		}
	}
	b.mu.Unlock()
	for _, name := range names {
		if err := b.removeSnapshot(name); err != nil {
			return err
		}
	}
	return nil
}

// purgeTopic removes a deleted topic's log, after it is noted how far that came.
func (b *Broker) purgeTopic(ctx context.Context, name string) error {
	e := b.engine.Load()
	t := b.topic(name)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holdLocked() // a batch that is being written would come after the purge
	defer t.releaseLocked()
	err := t.loadLocked(ctx, e)
	if err == nil {
		err = b.noteEnd(t.head)
	}
	var l *lane
	if err == nil {
		l, err = e.lane(t.class)
	}
	if err == nil {
		err = l.purge(ctx, name)
	}
	if err == nil && t.class != fleet.DurabilityDisk {
		err = b.noteClass(name, fleet.DurabilityDisk)
	}
	if err != nil {
		return unsaved(e.explain(err), "the messages of topic %s are not removed", name)
	}
	b.mu.Lock()
	delete(b.catalog.classes, name)
	b.mu.Unlock()
	t.head, t.bytes, t.first, t.last, t.recent, t.ahead = 0, 0, batch{}, batch{}, nil, nil
	return nil
}

// noteEnd notes that a deleted topic came as far as an offset: no topic that is created later gives that again. So what was said of
// a message, and outlives its topic, is never taken for another's: dead letters, acknowledgements, stories.
func (b *Broker) noteEnd(head uint64) error {
	b.mu.Lock()
	known := b.catalog.ends >= head
	b.mu.Unlock()
	if known {
		return nil
	}
	if err := b.keep(kindEnds, endsName, head); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.catalog.ends = head
	return nil
}

// begin returns the offset at which a topic that is being created begins: beyond all deleted ones, unless it has been used already, without having been
// created. The caller holds b.installing.
func (b *Broker) begin(name string) (uint64, error) {
	e := b.engine.Load()
	b.mu.Lock()
	ends := b.catalog.ends
	b.mu.Unlock()
	t := b.topic(name)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.loadLocked(e.ctx, e); err != nil {
		return 0, err
	}
	if t.head > 0 || len(t.subs) > 0 {
		return 0, nil
	}
	t.begins, t.head = ends, ends
	return ends, nil
}

// voidScheduled makes void what waits in the schedule for a deleted topic. It goes when it is due.
func (b *Broker) voidScheduled(name string) error {
	s := b.schedules
	s.mu.Lock()
	end, waits := s.endOfLogLocked(), s.pending > 0
	s.mu.Unlock()
	if !waits {
		return nil
	}
	if err := b.keep(kindVoid, name, end); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.catalog.voids[name] = end
	return nil
}

// dropVoid leaves out scheduled messages whose topic was deleted after their publish.
func (b *Broker) dropVoid(records map[uint64]*record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for offset, r := range records {
		if offset < b.catalog.voids[r.to] {
			delete(records, offset)
		}
	}
}

// trimVoids forgets which scheduled messages are void, once none of those is left. The caller holds b.installing.
func (b *Broker) trimVoids() error {
	first := b.schedules.firstPending()
	b.mu.Lock()
	var over []string
	for name, end := range b.catalog.voids {
		if end <= first {
			over = append(over, name)
		}
	}
	b.mu.Unlock()
	for _, name := range over {
		if err := b.erase(kindVoid, name); err != nil {
			return err
		}
		b.mu.Lock()
		delete(b.catalog.voids, name)
		b.mu.Unlock()
	}
	return nil
}

// firstPending is an offset before which nothing waits.
func (s *schedules) firstPending() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.batches {
		if s.batches[i].left > 0 {
			return s.batches[i].base
		}
	}
	return s.endOfLogLocked()
}

// endOfLogLocked is the offset of the next message that is scheduled.
func (s *schedules) endOfLogLocked() uint64 {
	if len(s.batches) == 0 {
		return 0
	}
	last := s.batches[len(s.batches)-1]
	return last.base + uint64(last.count)
}
