package broker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// settlePause is how long batches are ahead of their logs, at least, where there are few of them.
const settlePause = time.Second

// settler is woken when something is in the write-ahead log.
type settler struct {
	wake chan struct{}
	much chan struct{} // more than should wait
	busy sync.Mutex    // held while one stream is brought to the logs
}

func (s *settler) poke(held int) {
	select {
	case s.wake <- struct{}{}:
	default:
	}
	if held < walMuch {
		return
	}
	select {
	case s.much <- struct{}{}:
	default:
	}
}

// settleLoop brings what is ahead to the topics' logs: a second's worth together, and never so often that it takes most of the disk's time.
func (b *Broker) settleLoop(ctx context.Context) {
	pause := settlePause
	for {
		select {
		case <-b.settler.wake:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(pause):
		case <-b.settler.much:
		case <-ctx.Done():
			return
		}
		start := time.Now()
		if err := b.settleAhead(ctx); err != nil && ctx.Err() == nil {
			b.config.Log.Warn("the topics' logs are not written, to be tried again", "error", err)
			b.settler.poke(0)
		}
		pause = max(settlePause, flushShare*time.Since(start))
	}
}

// settleAhead brings what one stream of the write-ahead log holds to the topics' logs, and empties it. Where nothing is published, two
// of them leave the write-ahead log empty.
func (b *Broker) settleAhead(ctx context.Context) error {
	b.settler.busy.Lock()
	defer b.settler.busy.Unlock()
	e := b.engine.Load()
	if e.err() != nil {
		return nil // the next engine finds what is ahead
	}
	l, err := e.lane(fleet.DurabilityDisk)
	if err != nil || l.wal == nil {
		return err
	}
	stream, topics := l.wal.turnOver()
	for i := 0; i < len(topics) && err == nil; i++ {
		if err = ctx.Err(); err == nil {
			err = b.settleTopic(e, b.topic(topics[i]))
		}
	}
	if err == nil {
		err = l.wal.purge(ctx, stream)
	}
	if ctx.Err() == nil {
		l.wal.fail(err)
	}
	if err == nil && l.wal.held() > 0 {
		b.settler.poke(0)
	}
	return err
}

// unsettled is how many bytes the topics' logs have yet to take.
func (e *engine) unsettled() int64 {
	e.lanes.mu.Lock()
	l := e.lanes.open[laneOf(fleet.DurabilityDisk)]
	e.lanes.mu.Unlock()
	if l == nil || l.wal == nil {
		return 0
	}
	return int64(l.wal.held())
}

// settleTopic writes what is ahead of a topic's log to it.
func (b *Broker) settleTopic(e *engine, t *topic) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone || t.class != fleet.DurabilityDisk {
		return nil
	}
	return b.settleLocked(e, t)
}

// settleLocked writes what is ahead of a topic's log to it, as far as it is there when it begins. The caller holds t.mu, which is let go
// while the disk works.
func (b *Broker) settleLocked(e *engine, t *topic) error {
	if err := t.loadLocked(e.ctx, e); err != nil {
		return err
	}
	for until := t.head; len(t.ahead) > 0 && t.ahead[0].base < until; {
		for t.logging {
			t.changed.Wait()
		}
		if err := b.settleOneLocked(e, t); err != nil {
			return err
		}
		if err := t.loadLocked(e.ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// settleOneLocked writes one merged batch.
func (b *Broker) settleOneLocked(e *engine, t *topic) error {
	n := t.mergeableLocked()
	if n == 0 {
		return nil
	}
	merged := merge(t.ahead[:n])
	t.logging = true
	t.mu.Unlock()
	first, err := b.store(e, t.lane, fleet.DurabilityDisk, []message{{subject: t.lane.subject(t.name), data: merged.data}})
	t.mu.Lock()
	t.logging = false
	t.changed.Broadcast()
	if err != nil || t.loaded != e { // it reads its log again
		return err
	}
	merged.seq = first
	t.loggedLocked(merged)
	return nil
}

// mergeableLocked is how many of the batches that are ahead make up one of the log: as many as fit, and at least one, if there is one.
func (t *topic) mergeableLocked() (n int) {
	size := 0
	for _, a := range t.ahead {
		if n > 0 && size+a.size > copyBytes {
			break
		}
		n, size = n+1, size+a.size
	}
	return n
}

// merge makes one batch of several that follow each other. Each record keeps the time of its commit; the batch has that of the last,
// so that retention removes no record early.
func merge(batches []*batch) *batch {
	last := batches[len(batches)-1]
	out := &batch{base: batches[0].base, bytes: batches[0].bytes, time: last.time}
	if len(batches) == 1 {
		*out = *last
		return out
	}
	var records [][]byte
	for _, b := range batches {
		records = append(records, b.dated()...)
		out.count += b.count
	}
	out.data = out.encode(records)
	out.size = len(out.data)
	return out
}

// dated returns the encoded records of a batch, each with the time of its commit.
func (b *batch) dated() (out [][]byte) {
	_ = fields(b.data, func(f field) error { // it was encoded here, or read whole
		if f.number == 5 {
			out = append(out, dated(f.bytes, b.time))
		}
		return nil
	})
	return out
}

// aheadAtLocked returns the first batch that ends after an offset, where that is ahead of the log; nil where the log has it, or nothing has.
func (t *topic) aheadAtLocked(offset uint64) *batch {
	if t.last.seq != 0 && t.last.end() > offset {
		return nil
	}
	for _, a := range t.ahead {
		if a.end() > offset {
			return a
		}
	}
	return nil
}

// openedLocked returns a batch that is ahead of its log with its records. A reader who looks for it in the log starts after what the log has now.
func (t *topic) openedLocked(a *batch) (*batch, error) {
	out, err := decodeBatch(t.name, a.data, true)
	if err == nil {
		out.seq = t.last.seq
	}
	return out, err
}

// wentAhead gives a topic the batch that the write-ahead log has now.
func (g *group) wentAhead(w *wal) {
	t := g.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	g.batch.seq = t.last.seq
	if t.wal != w { // another engine has read it already
		return
	}
	t.ahead = append(t.ahead, &batch{base: g.batch.base, count: g.batch.count, bytes: g.batch.bytes, time: g.batch.time, size: g.batch.size, data: g.message.data})
}

// claim reports whether a batch may go to its topic's log at once. It takes what is ahead along, unless that is much.
func (g *group) claim() bool {
	t := g.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	size := g.batch.size
	for _, a := range t.ahead {
		size += a.size
	}
	if t.logging || len(t.ahead) > 0 && size > copyBytes {
		return false
	}
	t.logging = true
	if len(t.ahead) > 0 {
		own := *g.batch
		own.data = g.message.data
		g.log = merge(append(slices.Clone(t.ahead), &own))
		g.message.data = g.log.data
	}
	return true
}

// logged ends what claim began.
func (g *group) logged(seq uint64, err error) {
	t := g.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	t.logging = false
	t.changed.Broadcast()
	if err != nil {
		return
	}
	g.batch.seq = seq
	log := *g.log
	log.seq = seq
	t.loggedLocked(&log)
}
