package broker

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

// schedules holds messages that are not to be delivered yet. They lie in a log of their own, committed in groups as all others; in
// memory there are a heap of (time, offset), where in the stream each batch lies, and which offsets are over. A message that is
// due is committed to its topic, then noted as over; a crash between the two commits it again.
type schedules struct {
	topic *topic // the log
	wake  chan struct{}

	saving sync.Mutex // held through one save: a batch is removed once

	mu      sync.Mutex
	heap    dues
	batches []scheduledBatch // sorted by base
	over    map[uint64]*block
	firing  map[uint64]bool // on their way to their topics
	pending int
	near    near
	kept    atomic.Int32 // backups that need what is over
	failed  string       // why what is due cannot be committed
}

// due is one message in the heap: 16 bytes.
type due struct {
	at     int64 // Unix nanoseconds
	offset uint64
}

// scheduledBatch is where the offsets from base on lie; 24 bytes.
type scheduledBatch struct {
	base, seq uint64
	count     uint32
	left      uint32 // of its messages that are not over
}

// block notes which of blockSize offsets are over.
type block struct {
	bits  [blockSize / 64]uint64
	dirty bool
}

const (
	blockSize  = 1 << 16
	fireMost   = 512 // messages that are committed together, at most
	deleteMost = 64  // batches that are over and are removed at a time
	fireAgain  = time.Second
)

// scheduleClass is the lane of the log.
const scheduleClass fleet.Durability = "schedule"

func newSchedules() *schedules {
	t := newTopic("all", scheduleClass)
	t.kept = true
	return &schedules{topic: t, wake: make(chan struct{}, 1), over: make(map[uint64]*block), firing: make(map[uint64]bool), near: near{records: make(map[uint64]*record)}}
}

func (b *block) set(i uint64) bool {
	was := b.bits[i/64]&(1<<(i%64)) != 0
	b.bits[i/64] |= 1 << (i % 64)
	b.dirty = b.dirty || !was
	return !was
}

func (b *block) has(i uint64) bool { return b.bits[i/64]&(1<<(i%64)) != 0 }

// loadSchedules reads what waits, from the last run.
func (b *Broker) loadSchedules(e *engine) error {
	s := b.schedules
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heap, s.batches, s.over, s.pending = nil, nil, make(map[uint64]*block), 0
	err := e.each(e.ctx, e.over, overPrefix+"*", func(m *jetstream.RawStreamMsg) error {
		n, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, overPrefix), 10, 64)
		blk := new(block)
		for i := range blk.bits {
			if len(m.Data) >= 8*(i+1) {
				blk.bits[i] = le(m.Data[8*i:])
			}
		}
		s.over[n] = blk
		return err
	})
	if err != nil {
		return err
	}
	l, err := e.lane(scheduleClass)
	if err != nil {
		return err
	}
	err = e.each(e.ctx, l.events, l.subject(s.topic.name), func(m *jetstream.RawStreamMsg) error {
		head, err := decodeBatch(s.topic.name, m.Data, false)
		if err != nil {
			return err
		}
		times, err := dueTimes(m.Data)
		s.addLocked(head.base, m.Sequence, times)
		return err
	})
	s.heap.init()
	return err
}

// dueTimes reads when a batch's records are due, and nothing else of them.
func dueTimes(data []byte) (out []int64, err error) {
	err = fields(data, func(f field) error {
		if f.number != 5 {
			return nil
		}
		var at int64
		err := fields(f.bytes, func(f field) error {
			if f.number == 13 {
				at = int64(f.number64)
			}
			return nil
		})
		out = append(out, at)
		return err
	})
	return out, err
}

// addLocked notes a batch. The heap is not in order afterwards.
func (s *schedules) addLocked(base, seq uint64, times []int64) (added int) {
	sb := scheduledBatch{base: base, seq: seq, count: uint32(len(times))}
	for i, at := range times {
		offset := base + uint64(i)
		if blk := s.over[offset/blockSize]; blk != nil && blk.has(offset%blockSize) {
			continue
		}
		sb.left++
		s.heap = append(s.heap, due{at, offset})
	}
	s.batches = append(s.batches, sb)
	s.pending += int(sb.left)
	return int(sb.left)
}

// committed takes a batch that was committed to the log.
func (s *schedules) committed(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	times := make([]int64, len(b.records))
	for i, r := range b.records {
		times[i] = r.notBefore.UnixNano()
	}
	n := s.addLocked(b.base, b.seq, times)
	s.holdSoonLocked(b)
	for i := len(s.heap) - n; i < len(s.heap); i++ {
		s.heap.up(i)
	}
	s.poke()
}

func (s *schedules) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// schedule commits records to the log, and returns their ids.
func (b *Broker) schedule(ctx context.Context, topicName string, records []*record) (ids []string, err error) {
	if err := b.synced(topicName); err != nil {
		return nil, err
	}
	for _, r := range records {
		r.to = topicName
	}
	p := newPublish(b.schedules.topic, records)
	if err := b.put(p); err != nil {
		return nil, b.notPlaced(p.topic, err)
	}
	if err := p.wait(ctx); err != nil {
		return nil, err
	}
	for i := range records {
		ids = append(ids, scheduledID(p.base+uint64(i)))
	}
	return ids, nil
}

// scheduledPrefix begins the ids of messages in the log.
const scheduledPrefix = "scheduled-"

func scheduledID(offset uint64) string { return scheduledPrefix + strconv.FormatUint(offset, 10) }

// Scheduled returns how many messages wait for their time, and when the next is due: zero where there is none.
func (b *Broker) Scheduled() (n int, next time.Time) {
	s := b.schedules
	s.mu.Lock()
	defer s.mu.Unlock()
	if d, ok := s.nextLocked(); ok {
		next = time.Unix(0, d.at).UTC()
	}
	return s.pending, next
}

// end notes that a message is over. It reports whether it was not.
func (s *schedules) end(offset uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endLocked(offset)
}

func (s *schedules) endLocked(offset uint64) bool {
	i := s.findLocked(offset)
	if i < 0 {
		return false
	}
	blk := s.over[offset/blockSize]
	if blk == nil {
		blk = new(block)
		s.over[offset/blockSize] = blk
	}
	if !blk.set(offset % blockSize) {
		return false
	}
	s.near.drop(offset)
	s.batches[i].left--
	s.pending--
	return true
}

// findLocked returns the batch that holds an offset, or -1.
func (s *schedules) findLocked(offset uint64) int {
	i, exact := slices.BinarySearchFunc(s.batches, offset, func(b scheduledBatch, o uint64) int { return cmp.Compare(b.base, o) })
	if !exact {
		i--
	}
	if i < 0 || offset >= s.batches[i].base+uint64(s.batches[i].count) {
		return -1
	}
	return i
}

// nextLocked returns what is due next, and drops what is over.
func (s *schedules) nextLocked() (d due, ok bool) {
	for len(s.heap) > 0 {
		d := s.heap[0]
		blk := s.over[d.offset/blockSize]
		if blk == nil || !blk.has(d.offset%blockSize) {
			return d, true
		}
		s.heap.pop()
	}
	return due{}, false
}

// scheduleLoop commits what is due, in order.
func (b *Broker) scheduleLoop(ctx context.Context) {
	s := b.schedules
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer s.near.work.Wait()
	for {
		select {
		case <-s.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		wait, err := b.fire(ctx)
		if err != nil && ctx.Err() == nil {
			b.config.Log.Warn("scheduled messages are not delivered yet, to be tried again", "error", err)
			wait = fireAgain
		}
		timer.Reset(beforeDue(wait))
	}
}

// beforeDue is how long the loop rests where nothing is due for a time: until then, or until what is due then is to be read.
func beforeDue(wait time.Duration) time.Duration {
	if wait > nearTime {
		return wait - nearTime
	}
	return min(wait, nearTime/2)
}

// fire commits what is due now, and returns how long nothing is.
func (b *Broker) fire(ctx context.Context) (wait time.Duration, err error) {
	for {
		b.readNear(ctx)
		batch, next := b.schedules.takeDue(time.Now().UnixNano())
		if len(batch) == 0 {
			return time.Until(next), nil
		}
		err := b.commitDue(ctx, batch)
		b.schedules.mu.Lock()
		b.schedules.failed = ""
		clear(b.schedules.firing)
		if err != nil {
			b.schedules.failed = err.Error()
			for _, d := range batch { // what was committed is over, and is dropped when its turn comes
				b.schedules.heap.push(d)
			}
		}
		b.schedules.mu.Unlock()
		b.flush.poke()
		if err != nil {
			return 0, err
		}
	}
}

// takeDue takes what is due out of the heap, and returns when the next is.
func (s *schedules) takeDue(now int64) (out []due, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		d, ok := s.nextLocked()
		if !ok {
			return out, time.Now().Add(time.Hour)
		}
		if d.at > now || len(out) == fireMost {
			return out, time.Unix(0, d.at)
		}
		out = append(out, d)
		s.firing[d.offset] = true
		s.heap.pop()
	}
}

// commitDue commits messages to their topics: of each topic in order.
func (b *Broker) commitDue(ctx context.Context, all []due) error {
	records := make(map[string][]*record)
	offsets := make(map[string][]uint64)
	found, err := b.recordsOf(ctx, all)
	if err != nil {
		return err
	}
	for _, d := range all {
		if found[d.offset] == nil {
			b.schedules.end(d.offset)
			continue
		}
		r := found[d.offset].due()
		records[r.Topic], offsets[r.Topic] = append(records[r.Topic], r), append(offsets[r.Topic], d.offset)
	}
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	for name := range records {
		wg.Go(func() {
			_, err := b.commitRecords(context.WithoutCancel(ctx), name, records[name]) // a stop answers it, too: else it would be committed again
			for _, o := range offsets[name] {
				if err == nil {
					b.schedules.end(o)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			failed = cmp.Or(failed, err)
		})
	}
	wg.Wait()
	return failed
}

// due is a record as it is committed once it is due.
func (r *record) due() *record {
	out := *r
	out.Topic, out.to, out.notBefore, out.given, out.span, out.published = r.to, "", time.Time{}, !r.plain, traceSpan{}, r.time
	return &out
}

// saveSchedules saves which messages are over, and removes batches that are.
func (b *Broker) saveSchedules() error {
	b.schedules.saving.Lock()
	defer b.schedules.saving.Unlock()
	return b.saveSchedulesLocked()
}

// saveSchedulesLocked is saveSchedules. The caller holds schedules.saving.
func (b *Broker) saveSchedulesLocked() error {
	s := b.schedules
	e := b.engine.Load()
	s.mu.Lock()
	var msgs []message
	var saved []*block
	for n, blk := range s.over {
		if blk.dirty {
			data := make([]byte, 0, blockSize/8)
			for _, word := range blk.bits {
				data = appendLE(data, word)
			}
			msgs, saved = append(msgs, message{subject: overPrefix + strconv.FormatUint(n, 10), data: data}), append(saved, blk)
			blk.dirty = false
		}
	}
	s.mu.Unlock()
	for len(msgs) > 0 {
		n := min(len(msgs), batchMost)
		if _, err := e.store(msgs[:n]); err != nil {
			s.mu.Lock()
			for _, blk := range saved {
				blk.dirty = true
			}
			s.mu.Unlock()
			return fmt.Errorf("saving which scheduled messages are over: %w", err)
		}
		msgs, saved = msgs[n:], saved[n:]
	}
	return b.removeOver(e)
}

// removeOver removes batches of the log whose messages are all over; never the last, which holds the log's place.
func (b *Broker) removeOver(e *engine) error {
	s := b.schedules
	if s.kept.Load() > 0 {
		return nil
	}
	s.mu.Lock()
	var over []uint64
	for i := 0; i < len(s.batches)-1 && len(over) < deleteMost; i++ {
		if s.batches[i].left == 0 {
			over = append(over, s.batches[i].seq)
		}
	}
	s.mu.Unlock()
	if len(over) == 0 {
		return nil
	}
	l, err := e.lane(scheduleClass)
	for _, seq := range over {
		if err == nil {
			err = l.events.DeleteMsg(e.ctx, seq)
		}
	}
	if err != nil {
		return fmt.Errorf("removing scheduled messages that are over: %w", e.explain(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches = slices.DeleteFunc(s.batches, func(b scheduledBatch) bool { return slices.Contains(over, b.seq) })
	if len(over) == deleteMost {
		b.flush.poke()
	}
	return s.dropBlocksLocked(e)
}

// dropBlocksLocked forgets blocks before the first batch that is kept.
func (s *schedules) dropBlocksLocked(e *engine) error {
	if len(s.batches) == 0 {
		return nil
	}
	for n := range s.over {
		if (n+1)*blockSize > s.batches[0].base {
			continue
		}
		if err := e.over.Purge(e.ctx, jetstream.WithPurgeSubject(overPrefix+strconv.FormatUint(n, 10))); err != nil {
			return e.explain(err)
		}
		delete(s.over, n)
	}
	return nil
}

// checkSchedule says why records cannot be kept for later, or nil.
func checkSchedule(at, now time.Time) error {
	if at.After(now.Add(longestSchedule)) {
		return &Error{Status: http.StatusBadRequest, Reason: fleet.ReasonMalformedEvent, Field: "not_before",
			Text: fmt.Sprintf("not accepted: it is to be delivered at %s; at most %v from now are allowed", at.Format(time.RFC3339), longestSchedule)}
	}
	return nil
}

// longestSchedule is how far ahead a message may be scheduled.
const longestSchedule = 10 * 365 * 24 * time.Hour
