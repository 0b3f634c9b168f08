package broker

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// window decides what a subscription delivers next. It does no I/O, reads no clock, and has no
// lock: subscription.go stands around it. From the cursor's floor to the topic's head an offset is settled, leased (in flight, or
// waiting for its next attempt), queued, or not read yet.
type window struct {
	limits limits
	cursor cursor
	head   uint64 // end of what is committed

	next    uint64 // offset to be queued next
	nextSeq uint64 // where in the stream to look for it
	queue   []item
	held    int // bytes of records in memory: queued and leased

	leases   map[uint64]*lease
	retries  retries
	inFlight int
	pause    pause
}

// limits are a subscription's settings.
type limits struct {
	concurrency int
	attempts    uint64
	minBackoff  time.Duration
	maxBackoff  time.Duration
}

// item is a record that was read ahead.
type item struct {
	offset, seq uint64
	record      *record
}

// lease is an event that is being delivered, or that waits for its next attempt.
type lease struct {
	item           // record is nil where it was dropped to save memory, and is read again
	attempt uint64 // this one's number, from 1
	due     time.Time
	notes   []Failure    // of this process; attempts before a restart are only counted
	span    fleet.SpanID // of the attempt before, in this process
}

// Failure is one failed attempt, as a dead letter tells it.
type Failure struct {
	Attempt uint64    `json:"attempt"`
	Time    time.Time `json:"time"`
	Error   string    `json:"error"`
}

// pause is why nothing starts.
type pause struct {
	reason string    // the receiver cannot be reached; empty: it can
	tries  int       // probes that failed
	until  time.Time // nothing starts before
}

// fate is how an attempt ended.
type fate int

const (
	acked       fate = iota // 2xx
	failed                  // the receiver had it: the attempt counts
	unreachable             // the receiver never saw it: no attempt was used, delivery pauses
	cut                     // the hub is stopping: the attempt is repeated under its number
	buried                  // it is a dead letter now
	expired                 // retention removed it before it was delivered
	unread                  // it could not be read back, or buried: no attempt was used
)

// outcome is the end of an attempt.
type outcome struct {
	fate       fate
	status     int
	reason     string        // Shoal-Reason, or what went wrong
	text       string        // a line for people
	retryAfter time.Duration // the receiver's wish; 0: none
	hold       bool          // the wish is for all deliveries: 429 or 503
}

func newWindow(c cursor, l limits) *window {
	return &window{limits: l, cursor: c, head: c.floor, next: c.floor, nextSeq: c.seq, leases: make(map[uint64]*lease)}
}

// add queues a batch that was committed or read, as far as it is what comes next and fits. It
// reports whether it went in whole.
func (w *window) add(b *batch) {
	w.head = max(w.head, b.end())
	if w.next >= b.end() {
		return
	}
	for i, r := range b.records {
		offset := b.base + uint64(i)
		if offset < w.next {
			continue
		}
		if w.full() {
			return
		}
		w.next = offset + 1
		if !w.cursor.isSettled(offset) {
			w.queue = append(w.queue, item{offset, b.seq, r})
			w.held += r.size()
		}
	}
	w.nextSeq = max(w.nextSeq, b.seq+1)
}

// offer takes a batch at its commit. Where the subscription is behind, it only learns the new head.
func (w *window) offer(b *batch) {
	w.head = max(w.head, b.end())
	if b.base == w.next {
		w.add(b)
	}
}

func (w *window) full() bool {
	return len(w.queue) >= windowQueue || w.held >= windowBytes && len(w.queue) > 0
}

// wants reports whether records should be read: from nextSeq on, the batch that holds next.
func (w *window) wants() bool {
	return w.next < w.head && len(w.queue) <= w.limits.concurrency && !w.full() && len(w.leases) < windowLeases
}

// skip says that nothing is kept before offset: retention removed it. It returns how many records were lost.
func (w *window) skip(offset uint64) (lost uint64) {
	lost = w.cursor.settle(w.next, offset)
	w.next = max(w.next, offset)
	return lost
}

// start returns what to deliver now, or nil: what is due again first, then what comes next.
func (w *window) start(now time.Time) *lease {
	if w.inFlight >= w.limits.concurrency || now.Before(w.pause.until) {
		return nil
	}
	if w.pause.reason != "" && w.inFlight > 0 {
		return nil // one probe at a time
	}
	var l *lease
	switch {
	case len(w.retries) > 0 && !w.retries[0].due.After(now):
		l = heap.Pop(&w.retries).(*lease)
	case len(w.queue) > 0 && len(w.leases) < windowLeases:
		l = &lease{item: w.queue[0]}
		w.queue[0] = item{}
		w.queue = w.queue[1:]
		w.leases[l.offset] = l
	default:
		return nil
	}
	l.attempt = w.cursor.attempts[l.offset] + 1
	w.inFlight++
	return l
}

// wake returns when start may give something that it does not give now; ok is false where no
// passing of time changes that.
func (w *window) wake() (at time.Time, ok bool) {
	if w.inFlight >= w.limits.concurrency || w.pause.reason != "" && w.inFlight > 0 {
		return at, false
	}
	if len(w.retries) > 0 {
		at, ok = w.retries[0].due, true
	}
	if len(w.queue) > 0 && len(w.leases) < windowLeases {
		at, ok = time.Time{}, true
	}
	if at.Before(w.pause.until) {
		at = w.pause.until
	}
	return at, ok
}

// end takes an attempt's outcome. It reports whether the cursor changed.
func (w *window) end(l *lease, o outcome, now time.Time) (changed bool) {
	w.inFlight--
	if o.fate != unreachable && o.fate != cut && o.fate != unread {
		w.pause.reason, w.pause.tries = "", 0
	}
	switch o.fate {
	case acked, buried, expired:
		w.drop(l)
		delete(w.leases, l.offset)
		w.cursor.settle(l.offset, l.offset+1)
		if o.fate == buried {
			w.cursor.dead++
		}
		return true
	case failed:
		w.cursor.failed(l.offset)
		l.notes = append(l.notes, Failure{l.attempt, now.UTC(), o.text})
		wait := max(w.backoff(int(l.attempt)), o.retryAfter)
		if o.hold && o.retryAfter > 0 {
			w.pause.until = now.Add(o.retryAfter)
		}
		w.retry(l, now.Add(wait))
		return true
	case unreachable:
		w.pauseFor(o.text, now)
		w.retry(l, time.Time{})
	case unread:
		w.retry(l, now.Add(w.limits.maxBackoff))
	case cut:
		w.retry(l, time.Time{})
	}
	return false
}

// retry puts a lease back. Records of many waiting leases are dropped, and read again when due.
func (w *window) retry(l *lease, due time.Time) {
	l.due = due
	if w.held > windowBytes {
		w.drop(l)
	}
	heap.Push(&w.retries, l)
}

func (w *window) drop(l *lease) {
	if l.record != nil {
		w.held -= l.record.size()
		l.record = nil
	}
}

// pauseFor stops delivery until a probe gets through. Failures of what was in flight together count once.
func (w *window) pauseFor(reason string, now time.Time) {
	if now.Before(w.pause.until) {
		return
	}
	w.pause.tries++
	w.pause.reason = reason
	w.pause.until = now.Add(w.backoff(w.pause.tries))
}

// resume lets the next probe start at once: what is known of the receiver has changed.
func (w *window) resume() {
	if w.pause.reason != "" {
		w.pause.tries, w.pause.until = 0, time.Time{}
	}
}

// backoff is the wait after the nth failure in a row: exponential, its upper half random, so that
// receivers are not struck in step.
func (w *window) backoff(n int) time.Duration {
	d := w.limits.maxBackoff
	if n < 30 {
		d = min(d, w.limits.minBackoff<<(n-1))
	}
	return d/2 + rand.N(d/2+1)
}

// saved is the cursor as it is to be saved.
func (w *window) saved() []byte {
	w.cursor.seq = w.nextSeq
	if len(w.queue) > 0 {
		w.cursor.seq = min(w.cursor.seq, w.queue[0].seq)
	}
	for _, l := range w.leases {
		w.cursor.seq = min(w.cursor.seq, l.seq)
	}
	return w.cursor.encode()
}

// oldest returns when the oldest unsettled record was committed, as far as it is in memory.
func (w *window) oldest() (at time.Time) {
	first := w.head
	for _, l := range w.leases {
		if l.record != nil && l.offset < first {
			first, at = l.offset, l.record.time
		}
	}
	if len(w.queue) > 0 && w.queue[0].offset < first {
		at = w.queue[0].record.time
	}
	return at
}

// retries are the leases that wait, by due time, then by offset: what became due together goes in order.
type retries []*lease

func (r retries) Len() int { return len(r) }
func (r retries) Less(i, j int) bool {
	if r[i].due.Equal(r[j].due) {
		return r[i].offset < r[j].offset
	}
	return r[i].due.Before(r[j].due)
}
func (r retries) Swap(i, j int) { r[i], r[j] = r[j], r[i] }
func (r *retries) Push(x any)   { *r = append(*r, x.(*lease)) }
func (r *retries) Pop() any {
	old := *r
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*r = old[:len(old)-1]
	return l
}
