package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

const (
	trimRounds = 1000        // trims within one retention time, at most one per longestTrim
	longTrim   = time.Minute //
	trimShare  = 16          // a quota that is reached is freed by this part, so that not every publish trims
)

// trimLoop removes what retention no longer keeps, and subscriptions that no manifest has had for as long.
func (b *Broker) trimLoop(ctx context.Context) {
	tick := time.NewTicker(max(min(b.config.Retention/trimRounds, longTrim), time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := b.trim(ctx, time.Now()); err != nil && ctx.Err() == nil {
			b.config.Log.Warn("trimming", "error", err)
		}
	}
}

// trim removes subscriptions and snapshots that are over, and messages that are too old.
func (b *Broker) trim(ctx context.Context, now time.Time) error {
	b.trimming.Lock()
	defer b.trimming.Unlock()
	for _, s := range b.subscriptions() {
		if s.detachedBefore(now.Add(-b.config.Retention)) || s.unusedSince(now) {
			b.forget(ctx, s)
			continue
		}
		if err := b.trimBacklog(ctx, s, now); err != nil {
			return err
		}
	}
	return errors.Join(b.trimCatalog(ctx, now), b.trimTopics(ctx, now)) // the catalog may want the room that old messages take
}

// trimCatalog removes snapshots that expired, and what is left of deleted topics.
func (b *Broker) trimCatalog(ctx context.Context, now time.Time) error {
	b.installing.Lock()
	defer b.installing.Unlock()
	return errors.Join(b.removeSnapshots(func(s *snapshot) bool { return now.After(s.Expires) }), b.finishDeletions(ctx), b.trimVoids())
}

// forgetEvents lets topics that take nothing any more forget which events they took.
func (b *Broker) forgetEvents(now time.Time) {
	b.mu.Lock()
	topics := slices.Collect(maps.Values(b.topics))
	b.mu.Unlock()
	for _, t := range topics {
		t.mu.Lock()
		if t.recent != nil {
			t.recent.forget(now)
		}
		t.mu.Unlock()
	}
}

// trimTopics removes messages that no topic and no subscription keeps.
func (b *Broker) trimTopics(ctx context.Context, now time.Time) error {
	b.forgetEvents(now)
	e := b.engine.Load()
	for _, class := range b.usedClasses() {
		l, err := e.lane(class)
		if err == nil {
			err = b.trimLane(ctx, e, l, now)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// usedClasses are the classes that some topic has.
func (b *Broker) usedClasses() (out []fleet.Durability) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, class := range classes {
		used := class == fleet.DurabilityDisk
		for _, c := range b.catalog.classes {
			used = used || c == class
		}
		if used {
			out = append(out, class)
		}
	}
	return out
}

func (b *Broker) trimLane(ctx context.Context, e *engine, l *lane, now time.Time) error {
	info, err := l.events.Info(ctx)
	if err != nil || info.State.Msgs == 0 || info.State.FirstTime.After(now.Add(-b.shortestRetention())) {
		return err
	}
	names, err := l.topicNames(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		t := b.topic(name)
		if err := b.trimTopic(ctx, e, t, now.Add(-b.retention(t))); err != nil {
			return err
		}
	}
	return nil
}

// shortestRetention is that of the topic that keeps its messages for the shortest time.
func (b *Broker) shortestRetention() time.Duration {
	d := b.config.Retention
	for _, c := range b.ListTopics(context.Background()) {
		if c.Retention > 0 {
			d = min(d, c.Retention)
		}
	}
	return d
}

// retention is how long a topic's messages are kept: as the topic says, or longer where a subscription does.
func (b *Broker) retention(t *topic) time.Duration {
	c, _ := b.topicConfig(t.name)
	d := cmp.Or(c.Retention, b.config.Retention)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.subs {
		d = max(d, s.retention())
	}
	return d
}

// retention is how long a subscription keeps its messages; 0 for one that no manifest has any more.
func (s *subscription) retention() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.live {
		return 0
	}
	return s.config.Retention
}

// trimBacklog drops what is older than a subscription keeps, where its topic keeps it longer.
func (b *Broker) trimBacklog(ctx context.Context, s *subscription, now time.Time) error {
	keep := s.retention()
	if keep == 0 || keep >= b.retention(s.topic) {
		return nil
	}
	offset, _, err := b.offsetAt(ctx, s.topic, now.Add(-keep))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if offset <= s.window.cursor.floor {
		return nil
	}
	s.lost += s.window.dropBefore(offset)
	s.dirty = true
	b.flush.poke()
	s.pumpLocked()
	return nil
}

// trimTopic removes a topic's batches from before cutoff. Where that is all of them, a marker is
// committed first: it keeps the topic's place, so that no offset is given twice.
func (b *Broker) trimTopic(ctx context.Context, e *engine, t *topic, cutoff time.Time) error {
	t.mu.Lock()
	err := t.loadLocked(ctx, e)
	old, all := t.first.time.Before(cutoff), t.newestLocked().Before(cutoff)
	marked := t.first.seq == t.last.seq && t.last.count == 0
	t.mu.Unlock()
	if err != nil || !old || marked {
		return err
	}
	if all {
		p := newPublish(t, nil)
		if err := b.put(p); err != nil {
			return err
		}
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.trimLocked(ctx, func(b *batch) bool { return !b.time.Before(cutoff) })
}

// quotaLocked makes room in a topic for size bytes, of what every subscription has passed, or says
// what stands in the way. The caller holds t.mu.
func (b *Broker) quotaLocked(e *engine, t *topic, size int) error {
	limit := uint64(b.config.MaxTopic)
	if t.kept || t.keptBytesLocked()+uint64(size) <= limit {
		return nil
	}
	if err := b.freeLocked(e, t, t.keptBytesLocked()+uint64(size)-limit+limit/trimShare); err != nil {
		return err
	}
	if t.keptBytesLocked()+uint64(size) <= limit {
		return nil
	}
	_, slowest := b.passedLocked(t)
	if slowest == "" {
		return nil // what is left is its last batch
	}
	return &fullError{fmt.Sprintf("its %d MB are full of messages that %s needs", limit>>20, slowest)}
}

// freeLocked removes at least want bytes of batches that every subscription has passed, as far as there are any.
func (b *Broker) freeLocked(e *engine, t *topic, want uint64) error {
	passed, _ := b.passedLocked(t)
	from := t.first.bytes
	return t.trimLocked(e.ctx, func(b *batch) bool { return b.end() > passed || b.bytes-from >= want })
}

// makeRoom frees part of what a class has, from the largest topics first. It reports whether it freed anything.
func (b *Broker) makeRoom(e *engine, class fleet.Durability) bool {
	b.mu.Lock()
	all := slices.Collect(maps.Values(b.topics))
	b.mu.Unlock()
	kept := make(map[*topic]uint64)
	var topics []*topic
	for _, t := range all {
		t.mu.Lock()
		if t.class == class && t.loaded == e {
			topics, kept[t] = append(topics, t), t.keptBytesLocked()
		}
		t.mu.Unlock()
	}
	slices.SortFunc(topics, func(x, y *topic) int { return int(kept[y]) - int(kept[x]) })
	var freed uint64
	for _, t := range topics {
		if freed >= uint64(b.config.MaxStore)/trimShare {
			break
		}
		t.mu.Lock()
		if err := b.freeLocked(e, t, uint64(b.config.MaxStore)/trimShare-freed); err != nil {
			b.config.Log.Warn("making room", "topic", t.name, "error", err)
		}
		freed += kept[t] - min(kept[t], t.keptBytesLocked())
		t.mu.Unlock()
	}
	return freed > 0
}

// trimLocked removes the batches before the first that keep wants, and never the last: it holds the
// topic's place. keep is false for some batches and true for all that follow. The caller holds t.mu.
func (t *topic) trimLocked(ctx context.Context, keep func(*batch) bool) error {
	first, err := t.searchLocked(ctx, keep)
	if err != nil || first == nil || first.seq <= t.first.seq {
		return err
	}
	if err := t.lane.events.Purge(ctx, jetstream.WithPurgeSubject(t.lane.subject(t.name)), jetstream.WithPurgeSequence(first.seq)); err != nil {
		return fmt.Errorf("trimming topic %s: %w", t.name, err)
	}
	t.first = *first
	return nil
}

// searchLocked returns the first batch that is is true for, or the last. is is false for some batches and true for all that
// follow. The caller holds t.mu.
func (t *topic) searchLocked(ctx context.Context, is func(*batch) bool) (*batch, error) {
	low, high := t.first.seq, t.last.seq
	for low < high {
		middle := low + (high-low)/2
		b, err := t.lane.batchFrom(ctx, t, middle, false)
		if err != nil || b == nil {
			return nil, err
		}
		if is(b) {
			high = middle
			continue
		}
		low = b.seq + 1
	}
	return t.lane.batchFrom(ctx, t, low, false)
}

func (s *subscription) detachedBefore(cutoff time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.window.cursor.detached
	return !s.live && !at.IsZero() && at.Before(cutoff)
}

// unusedSince reports whether nobody has used a subscription for as long as its expiration policy says.
func (s *subscription) unusedSince(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config.Expiration <= 0 || s.window.cursor.used.IsZero() {
		return false
	}
	if len(s.receivers) > 0 {
		s.usedLocked(now)
	}
	return now.Sub(s.window.cursor.used) > s.config.Expiration
}

// forget removes a subscription for good. An Install that brings it back waits, and makes it anew.
func (b *Broker) forget(ctx context.Context, s *subscription) {
	b.installing.Lock()
	defer b.installing.Unlock()
	created := b.created(s.name)
	if _, live := s.floorIfLive(); live && !created {
		return
	}
	if created {
		if err := b.erase(kindSubscription, s.name); err != nil {
			b.config.Log.Warn("a subscription expired", "subscription", s.name, "error", err)
			return
		}
		b.mu.Lock()
		delete(b.catalog.subscriptions, s.name)
		b.mu.Unlock()
	}
	b.removeSubscription(ctx, s.name)
}
