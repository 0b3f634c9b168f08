package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	trimRounds = 1000             // trims within one retention time, at most one per longestTrim
	longTrim   = 10 * time.Minute //
	trimShare  = 16               // a quota that is reached is freed by this part, so that not every publish trims
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
		if err := b.trimAge(ctx, time.Now().Add(-b.config.Retention)); err != nil && ctx.Err() == nil {
			b.config.Log.Warn("trimming", "error", err)
		}
	}
}

// trimAge removes what was committed before cutoff.
func (b *Broker) trimAge(ctx context.Context, cutoff time.Time) error {
	e := b.engine.Load()
	for _, s := range b.subscriptions() {
		if s.detachedBefore(cutoff) {
			b.forget(ctx, s)
		}
	}
	info, err := e.events.Info(ctx)
	if err != nil || info.State.Msgs == 0 || info.State.FirstTime.After(cutoff) {
		return err
	}
	if info, err = e.events.Info(ctx, jetstream.WithSubjectFilter(eventsPrefix+"*")); err != nil {
		return err
	}
	for subject := range info.State.Subjects {
		name, err := untoken(strings.TrimPrefix(subject, eventsPrefix))
		if err != nil {
			return err
		}
		if err := b.trimTopic(ctx, e, b.topic(name), cutoff); err != nil {
			return err
		}
	}
	return nil
}

// trimTopic removes a topic's batches from before cutoff. Where that is all of them, a marker is
// committed first: it keeps the topic's place, so that no offset is given twice.
func (b *Broker) trimTopic(ctx context.Context, e *engine, t *topic, cutoff time.Time) error {
	t.mu.Lock()
	err := t.loadLocked(ctx, e)
	old, all := t.first.time.Before(cutoff), t.last.time.Before(cutoff)
	marked := t.first.seq == t.last.seq && t.last.count == 0
	t.mu.Unlock()
	if err != nil || !old || marked {
		return err
	}
	if all {
		p := newPublish(t, nil)
		if err := b.commits.put(p); err != nil {
			return err
		}
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.trimLocked(ctx, e, func(b *batch) bool { return !b.time.Before(cutoff) })
}

// quotaLocked makes room in a topic for size bytes, of what every subscription has passed, or says
// what stands in the way. The caller holds t.mu.
func (b *Broker) quotaLocked(e *engine, t *topic, size int) error {
	limit := uint64(b.config.MaxTopic)
	if t.keptBytesLocked()+uint64(size) <= limit {
		return nil
	}
	if err := b.freeLocked(e, t, t.keptBytesLocked()+uint64(size)-limit+limit/trimShare); err != nil {
		return err
	}
	if t.keptBytesLocked()+uint64(size) <= limit {
		return nil
	}
	_, slowest := t.passedLocked()
	if slowest == "" {
		return nil // what is left is its last batch
	}
	return &fullError{fmt.Sprintf("its %d MB are full of events that subscription %s has not settled", limit>>20, slowest)}
}

// freeLocked removes at least want bytes of batches that every subscription has passed, as far as there are any.
func (b *Broker) freeLocked(e *engine, t *topic, want uint64) error {
	passed, _ := t.passedLocked()
	from := t.first.bytes
	return t.trimLocked(e.ctx, e, func(b *batch) bool { return b.end() > passed || b.bytes-from >= want })
}

// makeRoom frees part of the whole store, from the largest topics first. It reports whether it freed anything.
func (b *Broker) makeRoom(e *engine) bool {
	b.mu.Lock()
	topics := slices.Collect(maps.Values(b.topics))
	b.mu.Unlock()
	kept := make(map[*topic]uint64)
	for _, t := range topics {
		t.mu.Lock()
		kept[t] = t.keptBytesLocked()
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
func (t *topic) trimLocked(ctx context.Context, e *engine, keep func(*batch) bool) error {
	first, err := t.searchLocked(ctx, e, keep)
	if err != nil || first == nil || first.seq <= t.first.seq {
		return err
	}
	if err := e.events.Purge(ctx, jetstream.WithPurgeSubject(t.subject), jetstream.WithPurgeSequence(first.seq)); err != nil {
		return fmt.Errorf("trimming topic %s: %w", t.name, err)
	}
	t.first = *first
	return nil
}

// searchLocked returns the first batch that is is true for, or the last. is is false for some batches and true for all that
// follow. The caller holds t.mu.
func (t *topic) searchLocked(ctx context.Context, e *engine, is func(*batch) bool) (*batch, error) {
	low, high := t.first.seq, t.last.seq
	for low < high {
		middle := low + (high-low)/2
		b, err := e.batchFrom(ctx, t, middle, false)
		if err != nil || b == nil {
			return nil, err
		}
		if is(b) {
			high = middle
			continue
		}
		low = b.seq + 1
	}
	return e.batchFrom(ctx, t, low, false)
}

func (s *subscription) detachedBefore(cutoff time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.window.cursor.detached
	return !s.live && !at.IsZero() && at.Before(cutoff)
}

// forget removes a subscription for good. An Install that brings it back waits, and makes it anew.
func (b *Broker) forget(ctx context.Context, s *subscription) {
	b.installing.Lock()
	defer b.installing.Unlock()
	if _, live := s.floorIfLive(); live {
		return
	}
	if err := b.removeSubscription(ctx, s.name); err != nil {
		b.config.Log.Warn("forgetting a subscription", "subscription", s.name, "error", err)
	}
}

// purgeTopic removes what a deleted topic holds.
func (b *Broker) purgeTopic(ctx context.Context, name string) error {
	e := b.engine.Load()
	t := b.topic(name)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := e.events.Purge(ctx, jetstream.WithPurgeSubject(t.subject)); err != nil {
		return unavailable("the messages of topic %s are not removed: %v", name, e.explain(err))
	}
	b.mu.Lock()
	delete(b.topics, name)
	b.mu.Unlock()
	t.head, t.bytes, t.first, t.last = 0, 0, batch{}, batch{}
	return nil
}
