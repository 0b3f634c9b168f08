package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

// topic is one topic: a subject of the events stream, with offsets of its own.
type topic struct {
	name string

	mu     sync.Mutex
	class  fleet.Durability // where it lies
	kept   bool             // nothing is removed to make room
	lane   *lane            // of loaded
	loaded *engine          // whose stream the fields below describe; nil: none yet
	begins uint64           // offset of its first record, ever
	head   uint64           // offset of the next record
	bytes  uint64           // that its batches took, ever
	last   batch            // the newest, without records; its seq is 0 in an empty topic
	first  batch            // the oldest that is kept
	wal    *wal             // of loaded's lane
	ahead  []*batch         // encoded: what the write-ahead log has and the topic's own does not yet, in order
	subs   []*subscription
	recent *recent // events that it took lately; nil: not read yet
	known  uint64  // events that were published again since the start
	tails  []*tail

	stopped string // why it refuses events

	writing bool      // a batch has its offsets and is not settled yet
	logging bool      // something is on its way to the topic's log
	moving  bool      // to another durability class, or away: no batch gets offsets
	gone    bool      // it was deleted
	changed sync.Cond // of writing, logging and moving
}

func newTopic(name string, class fleet.Durability) *topic {
	t := &topic{name: name, class: class}
	t.changed.L = &t.mu
	return t
}

func (t *topic) durability() fleet.Durability {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.class
}

// holdLocked keeps batches out until releaseLocked, and waits for the one that is being written, which the log has only then.
func (t *topic) holdLocked() {
	t.moving = true
	for t.writing || t.logging {
		t.changed.Wait()
	}
}

func (t *topic) releaseLocked() {
	t.moving = false
	t.changed.Broadcast()
}

// wrote ends what place began.
func (t *topic) wrote() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wroteLocked()
}

func (t *topic) wroteLocked() {
	t.writing = false
	t.changed.Broadcast()
}

// load reads where the topic stands, once per engine. The caller holds t.mu.
func (t *topic) loadLocked(ctx context.Context, e *engine) error {
	if t.loaded == e {
		return nil
	}
	l, err := e.lane(t.class)
	if err != nil {
		return err
	}
	t.lane = l
	last, err := l.lastBatch(ctx, t)
	if err != nil {
		return fmt.Errorf("reading topic %s: %w", t.name, e.explain(err))
	}
	t.last, t.first, t.bytes = batch{}, batch{}, 0
	if last != nil {
		first, err := l.batchFrom(ctx, t, 1, false)
		if err != nil || first == nil {
			return fmt.Errorf("reading topic %s: %w", t.name, errors.Join(err, e.err()))
		}
		t.last, t.first = *last, *first
		t.head = max(t.head, last.end())
		t.bytes = last.bytes + uint64(last.size)
	}
	t.lookAheadLocked(l.wal)
	for _, s := range t.subs { // an offset that a cursor knows is never given again
		t.head = max(t.head, s.floor())
	}
	t.loaded = e
	return nil
}

// lookAheadLocked takes up what a write-ahead log has and the topic's own does not.
func (t *topic) lookAheadLocked(w *wal) {
	if t.wal != w {
		t.wal, t.ahead = w, nil
		if w != nil {
			t.ahead = w.take(t.name)
		}
	}
	t.dropAheadLocked()
	for _, a := range t.ahead {
		t.head = max(t.head, a.end())
		t.bytes = max(t.bytes, a.bytes+uint64(a.size))
	}
}

// dropAheadLocked forgets what the topic's log has by now.
func (t *topic) dropAheadLocked() {
	for len(t.ahead) > 0 && t.last.has(t.ahead[0]) {
		t.ahead = t.ahead[1:]
	}
}

// has reports whether a log whose last batch is b has another one of the topic: of markers, which have no records, the newest is enough.
func (b *batch) has(other *batch) bool {
	if b.seq == 0 || other.end() > b.end() {
		return false
	}
	return other.count > 0 || !other.time.After(b.time)
}

// appendedLocked notes a committed batch. The caller holds t.mu.
func (t *topic) appendedLocked(b *batch) {
	t.head = b.end()
	t.bytes = max(t.bytes, b.bytes+uint64(b.size))
	t.stopped = ""
}

// loggedLocked notes a batch that the topic's log has now. The caller holds t.mu.
func (t *topic) loggedLocked(b *batch) {
	t.last = batch{base: b.base, count: b.count, bytes: b.bytes, time: b.time, size: b.size, seq: b.seq}
	if t.first.seq == 0 {
		t.first = t.last
	}
	t.bytes = max(t.bytes, b.bytes+uint64(b.size))
	t.dropAheadLocked()
}

// newestLocked is when the topic's newest batch was committed; zero where it has none.
func (t *topic) newestLocked() time.Time {
	if n := len(t.ahead); n > 0 {
		return t.ahead[n-1].time
	}
	return timeOf(&t.last)
}

// oldestLocked is the oldest batch that the topic keeps; the zero value where it has none.
func (t *topic) oldestLocked() batch {
	if t.first.seq == 0 && len(t.ahead) > 0 {
		return *t.ahead[0]
	}
	return t.first
}

// keptBytes is what the topic's batches take on disk. The caller holds t.mu.
func (t *topic) keptBytesLocked() uint64 { return t.bytes - t.first.bytes }

// passedLocked is the offset below which no live subscription and no snapshot needs anything, and who stands in the way: the head, and
// nobody, where there is none. The caller holds t.mu.
func (b *Broker) passedLocked(t *topic) (offset uint64, slowest string) {
	if t.kept {
		return 0, "the schedule"
	}
	offset = t.head
	for _, s := range t.subs {
		if f, live := s.needs(); live && f < offset {
			offset, slowest = f, "subscription "+s.name
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, s := range b.catalog.snapshots {
		if s.Topic == t.name && s.floor < offset {
			offset, slowest = s.floor, "snapshot "+name
		}
	}
	return offset, slowest
}

// read returns the first batch of a topic that ends after an offset, with its records, or nil. It looks in the topic's log from a sequence
// on: that must not be later than where the offset lies.
func (b *Broker) read(t *topic, seq, offset uint64) (*batch, error) {
	for {
		e := b.engine.Load()
		found, err := b.readFrom(e, t, seq, offset)
		if now := b.engine.Load(); now == e || now.err() != nil {
			return found, err
		}
		// the messages lie elsewhere now, and what was read may be gone
	}
}

// readFrom reads from one engine.
func (b *Broker) readFrom(e *engine, t *topic, seq, offset uint64) (*batch, error) {
	t.mu.Lock()
	if err := t.loadLocked(e.ctx, e); err != nil {
		t.mu.Unlock()
		return nil, err
	}
	l := t.lane
	if a := t.aheadAtLocked(offset); a != nil { // else its log has it now, or nothing has
		defer t.mu.Unlock()
		return t.openedLocked(a)
	}
	last := t.last.seq
	t.mu.Unlock()
	return l.batchWith(e.ctx, t, seq, last, offset)
}

// batchWith returns the first batch of a topic's log, from a sequence on, that ends after an offset, with its records, or nil. Where that is not among
// the next few, it searches up to last.
func (l *lane) batchWith(ctx context.Context, t *topic, seq, last, offset uint64) (*batch, error) {
	for n := 1; ; n++ {
		m, err := l.events.GetMsg(ctx, max(seq, 1), jetstream.WithGetMsgSubject(l.subject(t.name)))
		b, err := readBatch(t, m, err, false)
		if err == nil && b == nil && last > 0 && seq <= last {
			return nil, errBehind
		}
		if err != nil || b == nil {
			return nil, err
		}
		if b.end() > offset {
			return readBatch(t, m, nil, true)
		}
		seq = b.seq + 1
		if n == scanMost {
			if seq, err = l.search(ctx, t, seq, last, offset); err != nil {
				return nil, err
			}
		}
	}
}

// errBehind is an answer of a server that does not know what the topic's newest batch is: one that was cut off from the others of its cluster, and has not
// noticed. A log always has its newest batch (see trimLocked).
var errBehind = errors.New("the server that answered lacks messages that are committed")

// scanMost is how many batches are read one after the other before the log is searched.
const scanMost = 4

// search returns from where on, between two sequences, the batch lies that ends after an offset.
func (l *lane) search(ctx context.Context, t *topic, low, high, offset uint64) (uint64, error) {
	for low < high {
		middle := low + (high-low)/2
		b, err := l.batchFrom(ctx, t, middle, false)
		if err != nil {
			return 0, err
		}
		if b == nil || b.end() > offset {
			high = middle
			continue
		}
		low = b.seq + 1
	}
	return low, nil
}

// lastBatch returns the newest batch of a topic without its records, or nil.
func (l *lane) lastBatch(ctx context.Context, t *topic) (*batch, error) {
	m, err := l.events.GetLastMsgForSubject(ctx, l.subject(t.name))
	return readBatch(t, m, err, false)
}

// batchFrom returns the first batch of a topic at or after a sequence, or nil.
func (l *lane) batchFrom(ctx context.Context, t *topic, seq uint64, records bool) (*batch, error) {
	m, err := l.events.GetMsg(ctx, max(seq, 1), jetstream.WithGetMsgSubject(l.subject(t.name)))
	return readBatch(t, m, err, records)
}

func readBatch(t *topic, m *jetstream.RawStreamMsg, err error, records bool) (*batch, error) {
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := decodeBatch(t.name, m.Data, records)
	if err != nil {
		return nil, fmt.Errorf("message %d: %w", m.Sequence, err)
	}
	b.seq = m.Sequence
	return b, nil
}

// timeOf is when a batch was committed, or zero for a topic that has none.
func timeOf(b *batch) time.Time {
	if b.seq == 0 {
		return time.Time{}
	}
	return b.time
}
