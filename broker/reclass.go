package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

// kindClass is the kind of the catalog's notes on where a topic lies, where that is not `disk`.
const kindClass = "class"

// reclass brings a topic to another durability class. That is a copy: what was published meanwhile follows, then the topic is
// held, the rest is copied, and the note in the catalog decides which of the two logs holds. The caller holds b.installing.
func (b *Broker) reclass(ctx context.Context, name string, class fleet.Durability) error {
	if class == "" {
		class = fleet.DurabilityDisk
	}
	t := b.topic(name)
	t.mu.Lock()
	was := t.class
	t.mu.Unlock()
	if was == class {
		return nil
	}
	e := b.engine.Load()
	from, err := e.lane(was)
	if err != nil {
		return err
	}
	to, err := e.lane(class)
	if err != nil {
		return err
	}
	if err := to.purge(ctx, name); err != nil { // of a copy that was cut off
		return err
	}
	c := &copying{from: from, to: to, topic: t, next: 1}
	for range copyPasses { // what is published during one is the next one's
		if err := c.pass(ctx); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holdLocked()
	defer t.releaseLocked()
	if err := b.settleLocked(e, t); err != nil {
		return err
	}
	if err := c.pass(ctx); err != nil {
		return err
	}
	if err := b.noteClass(name, class); err != nil {
		return err
	}
	b.mu.Lock()
	b.catalog.classes[name] = class
	b.mu.Unlock()
	t.class, t.loaded = class, nil
	if err := t.loadLocked(ctx, e); err != nil {
		return err
	}
	for _, s := range t.subs {
		s.relocate(t.head)
	}
	return from.purge(ctx, name)
}

// noteClass is the moment in which the other log holds.
func (b *Broker) noteClass(name string, class fleet.Durability) error {
	if class != fleet.DurabilityDisk {
		return b.keep(kindClass, name, class)
	}
	return b.erase(kindClass, name)
}

// copying is a topic's log on its way to another lane. Batches are merged, since the other lane may sync each.
type copying struct {
	from, to *lane
	topic    *topic
	next     uint64 // in from
	merged   *batch // that is to be written
	records  [][]byte
	size     int
	bytes    uint64 // that were written
}

const (
	copyPasses = 3
	copyBytes  = 1 << 20 // of one merged batch
)

// pass copies what is there when it begins.
func (c *copying) pass(ctx context.Context) error {
	last, err := c.from.lastBatch(ctx, c.topic)
	for err == nil && last != nil && c.next <= last.seq {
		err = c.one(ctx)
	}
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		return fmt.Errorf("copying topic %s: %w", c.topic.name, c.from.engine.explain(err))
	}
	return nil
}

// one takes the next batch.
func (c *copying) one(ctx context.Context) error {
	m, err := c.from.events.GetMsg(ctx, c.next, jetstream.WithGetMsgSubject(c.from.subject(c.topic.name)))
	if err != nil {
		return err
	}
	b, err := decodeBatch(c.topic.name, m.Data, false)
	if err != nil {
		return err
	}
	c.next = m.Sequence + 1
	if c.merged != nil && c.size+len(m.Data) > copyBytes {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if c.merged == nil {
		c.merged = &batch{base: b.base, bytes: max(b.bytes, c.bytes)}
	}
	c.merged.count += b.count
	c.merged.time = b.time
	c.size += len(m.Data)
	return fields(m.Data, func(f field) error {
		if f.number == 5 {
			c.records = append(c.records, dated(f.bytes, b.time))
		}
		return nil
	})
}

// flush writes what was merged.
func (c *copying) flush() error {
	if c.merged == nil {
		return nil
	}
	data := c.merged.encode(c.records)
	if _, err := c.to.store([]message{{subject: c.to.subject(c.topic.name), data: data}}); err != nil {
		return err
	}
	c.bytes = c.merged.bytes + uint64(len(data))
	c.merged, c.records, c.size = nil, nil, 0
	return nil
}

func (l *lane) subject(name string) string { return l.prefix + token(name) }

// purge removes what a lane has of a topic, of which nothing is being written.
func (l *lane) purge(ctx context.Context, name string) error {
	if l.wal != nil {
		if err := l.wal.forget(name); err != nil {
			return fmt.Errorf("removing what is ahead of topic %s: %w", name, err)
		}
	}
	err := l.events.Purge(ctx, jetstream.WithPurgeSubject(l.subject(name)))
	if err == nil && l.wal != nil {
		err = l.seal(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("removing the old copy of topic %s: %w", name, l.engine.explain(err))
	}
	return nil
}

// seal makes a removal durable. JetStream syncs what it writes, along with what it noted before as removed; not a removal by itself. Else a power cut could
// bring the old log back, and what the write-ahead log has of the new one would seem to be there already.
func (l *lane) seal(ctx context.Context, name string) error {
	marker := batch{time: time.Now()}
	seq, err := l.store([]message{{subject: l.subject(name), data: marker.encode(nil)}})
	if quotaExceeded(err) {
		return nil // then nothing was removed
	}
	if err == nil {
		err = l.events.DeleteMsg(ctx, seq)
	}
	return err
}

// relocate reads on in another log, from the same offset. What is in flight comes again.
func (s *subscription) relocate(head uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.window
	attempts, notes, noted := w.cursor.attempts, w.cursor.notes, w.cursor.noted
	s.moveLocked(&cursor{floor: w.cursor.floor, settled: w.cursor.settled})
	w.cursor.attempts, w.cursor.notes, w.cursor.noted = attempts, notes, noted
	w.head = max(w.head, head)
}
