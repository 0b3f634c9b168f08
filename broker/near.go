package broker

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// near has the records of scheduled messages that are due soon: a commit of what is due must not wait for the log, of whose batches messages
// that are due together may come from very many. It is guarded by the schedules' lock.
type near struct {
	records map[uint64]*record // by offset
	bytes   int
	until   time.Time // to where the log was read
	reading bool
	work    sync.WaitGroup // of reading
}

const (
	nearTime  = 2 * time.Second // how long before they are due messages are read
	nearMost  = 8192            // messages that are read at a time
	nearBytes = 8 << 20         // that are held
	nearAgain = 100 * time.Millisecond
)

// hold keeps a record, where there is room for it.
func (n *near) hold(offset uint64, r *record) {
	if n.records[offset] != nil || n.bytes+r.size() > nearBytes {
		return
	}
	n.records[offset] = r
	n.bytes += r.size()
}

// drop forgets a record.
func (n *near) drop(offset uint64) {
	if r := n.records[offset]; r != nil {
		n.bytes -= r.size()
		delete(n.records, offset)
	}
}

// soonest returns the entries of a heap that are due first, up to a time and a number, in order.
func (h dues) soonest(until int64, most int) (out []due) {
	var edge dues // entries whose parents were taken; offset is their place in h
	reach := func(i int) {
		if i < len(h) && h[i].at <= until {
			edge.push(due{h[i].at, uint64(i)})
		}
	}
	for reach(0); len(edge) > 0 && len(out) < most; {
		i := int(edge[0].offset)
		edge.pop()
		out = append(out, h[i])
		reach(2*i + 1)
		reach(2*i + 2)
	}
	return out
}

// readNear reads what will be due soon, unless that was done a moment ago.
func (b *Broker) readNear(ctx context.Context) {
	s := b.schedules
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.near.reading || s.near.until.After(now.Add(nearTime/2)) {
		return
	}
	soon := s.heap.soonest(now.Add(nearTime).UnixNano(), nearMost)
	wanted := s.placesLocked(soon)
	s.near.until = now.Add(nearTime)
	if len(soon) == nearMost { // there is more
		s.near.until = now.Add(nearTime/2 + nearAgain)
	}
	if len(wanted) == 0 {
		return
	}
	s.near.reading = true
	s.near.work.Go(func() {
		err := b.readScheduled(ctx, wanted, func(offset uint64, r *record) {
			held := *r
			held.Data = bytes.Clone(r.Data) // not all of its batch
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.pendingLocked(offset) {
				s.near.hold(offset, &held)
			}
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		s.near.reading = false
		if err != nil {
			b.config.Log.Debug("scheduled messages are not read ahead", "error", err)
		}
	})
}

// logPlace is where a batch of the log lies.
type logPlace struct{ base, seq uint64 }

// placesLocked returns which batches hold messages that are not near.
func (s *schedules) placesLocked(all []due) map[logPlace][]uint64 {
	out := make(map[logPlace][]uint64)
	for _, d := range all {
		if i := s.findLocked(d.offset); i >= 0 && s.near.records[d.offset] == nil {
			at := logPlace{s.batches[i].base, s.batches[i].seq}
			out[at] = append(out[at], d.offset)
		}
	}
	return out
}

// readScheduled reads messages, each batch once, and calls each for those that are there.
func (b *Broker) readScheduled(ctx context.Context, wanted map[logPlace][]uint64, each func(offset uint64, r *record)) error {
	for at, offsets := range wanted {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		batch, err := b.read(b.schedules.topic, at.seq, at.base)
		if err != nil {
			return err
		}
		for _, offset := range offsets {
			if batch != nil && offset >= batch.base && offset < batch.end() {
				each(offset, batch.records[offset-batch.base])
			}
		}
	}
	return nil
}

// recordsOf returns the records of messages that are due, as far as they are there, by offset.
func (b *Broker) recordsOf(ctx context.Context, all []due) (map[uint64]*record, error) {
	s := b.schedules
	out := make(map[uint64]*record, len(all))
	s.mu.Lock()
	for _, d := range all {
		if r := s.near.records[d.offset]; r != nil {
			out[d.offset] = r
		}
	}
	wanted := s.placesLocked(all)
	s.mu.Unlock()
	err := b.readScheduled(ctx, wanted, func(offset uint64, r *record) { out[offset] = r })
	b.dropVoid(out)
	return out, err
}

// holdSoonLocked keeps those records of a batch that are due soon.
func (s *schedules) holdSoonLocked(b *batch) {
	soon := b.time.Add(nearTime)
	for i, r := range b.records {
		if r.notBefore.Before(soon) {
			s.near.hold(b.base+uint64(i), r)
		}
	}
}

// pendingLocked reports whether a message is not over.
func (s *schedules) pendingLocked(offset uint64) bool {
	blk := s.over[offset/blockSize]
	return s.findLocked(offset) >= 0 && (blk == nil || !blk.has(offset%blockSize))
}
