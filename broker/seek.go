package broker

import (
	"context"
	"time"
)

// Seeked is what a seek did, or would do.
type Seeked struct {
	Before uint64 // messages that were not settled
	After  uint64 // messages that are to be delivered now; but for a dry run, also those that a filter will keep back
}

// countTime bounds how long a topic's log is read to count what a seek would deliver.
const countTime = 10 * time.Second

// SeekTime makes everything that was committed before at settled, and everything from then on, as far as the topic keeps it,
// not: it is delivered, again where it was delivered before. A dry run only counts.
func (b *Broker) SeekTime(ctx context.Context, caller, subscription string, at time.Time, dry bool) (Seeked, error) {
	s, err := b.usable(ctx, caller, subscription)
	if err != nil {
		return Seeked{}, err
	}
	e := b.engine.Load()
	offset, seq, err := b.offsetAt(ctx, s.topic, at)
	if err != nil {
		return Seeked{}, err
	}
	if b.engine.Load() != e {
		return Seeked{}, unavailable("the messages of topic %s have just been moved: try again", s.topic.name)
	}
	return b.seek(ctx, s, &cursor{floor: offset, seq: seq}, dry)
}

// SeekSnapshot gives a subscription the acknowledgement state of a snapshot, which may be another subscription's of the same topic.
func (b *Broker) SeekSnapshot(ctx context.Context, caller, subscription, name string, dry bool) (Seeked, error) {
	s, err := b.usable(ctx, caller, subscription)
	if err != nil {
		return Seeked{}, err
	}
	c, err := b.Snapshot(ctx, name)
	if err != nil {
		return Seeked{}, err
	}
	if err := mayChange(caller, c.Owner, "snapshot "+name); err != nil {
		return Seeked{}, err
	}
	if c.Topic != s.topic.name {
		return Seeked{}, precondition("snapshot %s is of topic %s, and subscription %s of topic %s", name, c.Topic, subscription, s.topic.name)
	}
	b.mu.Lock()
	kept := b.catalog.snapshots[name]
	b.mu.Unlock()
	if kept == nil {
		return Seeked{}, notFound("snapshot %s has just been deleted", name)
	}
	to, err := decodeCursor(kept.Cursor)
	if err != nil {
		return Seeked{}, err
	}
	return b.seek(ctx, s, to, dry)
}

// offsetAt returns where the topic's first batch that was not committed before a time begins, and the head where there is none.
func (b *Broker) offsetAt(ctx context.Context, t *topic, at time.Time) (offset, seq uint64, err error) {
	e := b.engine.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.loadLocked(ctx, e); err != nil {
		return 0, 0, unsaved(err, "topic %s cannot be read", t.name)
	}
	if t.last.seq == 0 || t.last.time.Before(at) {
		for _, a := range t.ahead {
			if !a.time.Before(at) {
				return a.base, t.last.seq + 1, nil
			}
		}
		return t.head, t.last.seq + 1, nil
	}
	first, err := t.searchLocked(ctx, func(b *batch) bool { return !b.time.Before(at) })
	if err == nil && first != nil {
		first, err = t.lane.batchFrom(ctx, t, first.seq, true)
	}
	if err != nil {
		return 0, 0, unsaved(e.explain(err), "topic %s cannot be read", t.name)
	}
	if first == nil {
		return t.head, t.last.seq + 1, nil
	}
	for i, r := range first.records { // of a merged batch each has the time of its own commit
		if !r.time.Before(at) {
			return first.base + uint64(i), first.seq, nil
		}
	}
	return first.base, first.seq, nil
}

// seek puts a subscription at another place, durably.
func (b *Broker) seek(ctx context.Context, s *subscription, to *cursor, dry bool) (out Seeked, err error) {
	s.mu.Lock()
	w := s.window
	out.Before, out.After = w.cursor.lag(w.head), to.lag(w.head)
	if dry {
		s.mu.Unlock()
		kept, err := b.keptBack(ctx, s, to)
		out.After -= min(kept, out.After)
		return out, err
	}
	s.moveLocked(to)
	s.mu.Unlock()
	if err := b.saveCursors(); err != nil {
		return out, unsaved(err, "subscription %s goes on from there, and that is not saved yet", apiName(s.name))
	}
	return out, nil
}

// keptBack counts the messages from a place on that a subscription does not get: its filter keeps them back, or they were redriven for another one. Of a
// very long log a part is read.
func (b *Broker) keptBack(ctx context.Context, s *subscription, to *cursor) (n uint64, err error) {
	s.mu.Lock()
	match := s.window.limits.filter
	s.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	var wanted bits
	var of *batch
	err = b.eachFrom(limited, s.topic, to.floor, to.seq, func(in *batch, offset uint64, r *record) {
		if match != nil && of != in {
			wanted, of = match(in), in
		}
		others := r.only != "" && r.only != s.name || match != nil && !wanted.has(int(offset-in.base))
		if others && !to.isSettled(offset) {
			n++
		}
	})
	if limited.Err() != nil && ctx.Err() == nil {
		err = nil
	}
	if err != nil {
		return n, unavailable("topic %s cannot be read: %v", s.topic.name, err)
	}
	return n, nil
}

// moveLocked puts a subscription at another place. What is in flight ends without effect.
func (s *subscription) moveLocked(to *cursor) {
	s.window.seek(to)
	s.dirty = true
	for _, r := range s.receivers {
		r.holder = holder{limit: r.holder.limit, bytes: r.holder.bytes}
	}
	s.pushes = holder{push: true, limit: s.pushes.limit, allowed: s.pushes.allowed}
	s.pumpLocked()
}

// seek moves the window: what is in flight ends without effect.
func (w *window) seek(to *cursor) {
	c := cursor{name: w.cursor.name, floor: min(to.floor, w.head), seq: to.seq, turn: w.cursor.turn + 1, dead: w.cursor.dead, used: w.cursor.used, redrive: w.cursor.redrive}
	for _, span := range to.settled {
		c.settle(span.from, span.to)
	}
	moved := newWindow(c, w.limits)
	moved.head, moved.pause, moved.trouble = w.head, w.pause, w.trouble
	*w = *moved
}
