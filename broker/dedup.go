package broker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// How long, and how many, ids of CloudEvents a topic remembers: whichever ends first.
const (
	dedupTime = 10 * time.Minute
	dedupMost = 1_000_000
)

// eventKey stands for the source and id of an event, which identify it (CloudEvents 1.0, section 3.1.1).
type eventKey [16]byte

func (e *Event) key() (k eventKey) {
	h := sha256.New()
	var size [8]byte
	binary.LittleEndian.PutUint64(size[:], uint64(len(e.Source)))
	h.Write(size[:])
	h.Write([]byte(e.Source))
	h.Write([]byte(e.ID))
	copy(k[:], h.Sum(nil))
	return k
}

// recent holds the events that a topic took lately. A publish of one again is answered as the first was, and not committed. It
// is rebuilt from the end of the log. It is guarded by the topic's lock.
type recent struct {
	keys  map[eventKey]struct{}
	order []seen // oldest first, from start on
	start int
}

type seen struct {
	key eventKey
	at  int64 // Unix nanoseconds
}

func newRecent() *recent { return &recent{keys: make(map[eventKey]struct{})} }

func (r *recent) has(k eventKey) bool {
	_, ok := r.keys[k]
	return ok
}

// add remembers an event, and forgets what is too old or too much.
func (r *recent) add(k eventKey, at time.Time) {
	if r.has(k) {
		return
	}
	r.keys[k] = struct{}{}
	r.order = append(r.order, seen{k, at.UnixNano()})
	r.forget(at)
}

func (r *recent) forget(now time.Time) {
	limit := now.Add(-dedupTime).UnixNano()
	for r.start < len(r.order) && (r.order[r.start].at < limit || len(r.order)-r.start > dedupMost) {
		delete(r.keys, r.order[r.start].key)
		r.start++
	}
	if r.start == len(r.order) { // a map that shrinks keeps its memory
		*r = *newRecent()
	}
	if r.start > len(r.order)/2 && r.start > 1024 {
		r.order = append([]seen(nil), r.order[r.start:]...)
		r.start = 0
	}
}

// dedupes reports whether a record is to be known again: an event with an id of its publisher's.
func (r *record) dedupes() bool { return !r.plain && r.only == "" && r.given }

// recallLocked reads the events of the last minutes from the log, once. The caller holds t.mu.
func (t *topic) recallLocked(ctx context.Context) error {
	if t.recent != nil {
		return nil
	}
	r := newRecent()
	since := time.Now().Add(-dedupTime)
	if err := t.recallLogLocked(ctx, r, since); err != nil {
		return err
	}
	for _, a := range t.ahead {
		b, err := t.openedLocked(a)
		if err != nil {
			return err
		}
		r.addAll(b)
	}
	t.recent = r
	return nil
}

// recallLogLocked reads the events since a time from the topic's log.
func (t *topic) recallLogLocked(ctx context.Context, r *recent, since time.Time) error {
	if t.last.seq == 0 || t.last.time.Before(since) {
		return nil
	}
	b, err := t.searchLocked(ctx, func(b *batch) bool { return !b.time.Before(since) })
	for err == nil && b != nil {
		if b, err = t.lane.batchFrom(ctx, t, b.seq, true); err != nil || b == nil {
			break
		}
		r.addAll(b)
		b, err = t.lane.batchFrom(ctx, t, b.seq+1, false)
	}
	return err
}

// addAll remembers the events of a batch.
func (r *recent) addAll(b *batch) {
	for _, rec := range b.records {
		if !rec.plain && rec.only == "" {
			r.add(rec.Event.key(), rec.time)
		}
	}
}

// freshLocked leaves out of a group what the topic took already, and what is twice in it. The caller holds t.mu.
func (g *group) freshLocked(ctx context.Context) error {
	var own map[eventKey]struct{}
	for _, p := range g.publishes {
		for i := 0; i < len(p.records); i++ {
			r := p.records[i]
			if !r.dedupes() {
				continue
			}
			if err := g.topic.recallLocked(ctx); err != nil {
				return err
			}
			k := r.Event.key()
			if _, twice := own[k]; !twice && !g.topic.recent.has(k) {
				if own == nil {
					own = make(map[eventKey]struct{})
				}
				own[k] = struct{}{}
				g.keys = append(g.keys, k)
				continue
			}
			g.topic.known++
			p.drop(i)
			i--
		}
	}
	return nil
}

// drop leaves a record out of a publish. What was given stays as it is.
func (p *publish) drop(i int) {
	p.records = append(p.records[:i:i], p.records[i+1:]...)
	p.encoded = append(p.encoded[:i:i], p.encoded[i+1:]...)
}
