package broker

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// window decides what a subscription delivers next, by push and to pullers alike. It does no I/O, reads no clock, and has no
// lock: subscription.go stands around it. From the cursor's floor to the topic's head an offset is settled, leased (in flight,
// or waiting for its next attempt, or for an earlier one of its ordering key), queued, left behind with its
// key (run.go), or not read yet.
type window struct {
	limits limits
	cursor cursor
	head   uint64 // end of what is committed

	next    uint64 // offset to be queued next
	nextSeq uint64 // where in the stream to look for it
	queue   []item
	held    int // bytes of records in memory: queued and leased

	leases    map[uint64]*lease
	retries   schedule        // leases that wait, by when they are due
	deadlines schedule        // leases of pullers, by when they expire
	runs      map[string]*run // ordering keys that have leases
	retried   bool            // what started last had failed before: the next is one that has not, if there is any
	inFlight  int
	pause     pause
	trouble   trouble
	acked     uint64  // pushes that were acknowledged
	voided    []*told // deliveries that void took back, to be told of
}

// limits are a subscription's settings.
type limits struct {
	leases      int    // most, in flight and waiting
	attempts    uint64 // failed attempts before a message is dead-lettered; 0: any number
	minBackoff  time.Duration
	maxBackoff  time.Duration
	ordered     bool
	exactlyOnce bool
	filter      func(*batch) bits // which records of a batch are delivered; nil: all
	delay       time.Duration     // between commit and delivery
}

// item is a record that was read ahead.
type item struct {
	offset, seq uint64
	record      *record
}

// lease is a message that is being delivered, or that waits for its next attempt.
type lease struct {
	item               // record is nil where it was dropped to save memory, and is read again
	at       time.Time // of its commit
	state    leaseState
	attempt  uint64       // this one's number, from 1
	delivery uint64       // how often it was handed out by this process: part of its ack id
	when     time.Time    // waiting: not before. In flight to a puller: until
	index    int          // in the schedule that it is in; -1: in none
	sure     bool         // in flight to a puller who has said a word of it: so it arrived
	holder   *holder      // in flight: whose it is. Waiting: who alone may have it; nil: anybody
	run      *run         // nil: unordered
	span     fleet.SpanID // of the attempt before
	told     *told        // in flight to a puller: what will be told of that
	refused  bool         // the receiver asked to be left alone when it was pushed
	acked    uint64       // then: how many pushes had been acknowledged
}

type leaseState int

const (
	waiting leaseState = iota
	flying             // in flight
	held               // acknowledged, while an earlier one of its run is not
	leaving            // on its way to the dead letters
)

// holder is who has messages in flight: one puller, or all pushes of a subscription.
type holder struct {
	push  bool
	limit int // most in flight; 0: any number
	bytes int // most in flight; 0: any number

	allowed float64 // pushes in flight that the receiver sustains; 0: limit
	round   int     // ends until allowed may shrink again

	count, size int
	ready       []*lease // what follows in the runs that it has in flight
	gone        bool
}

// full reports whether h must not be given more.
func (h *holder) full() bool {
	return h.limit > 0 && h.count >= h.places() || h.bytes > 0 && h.size >= h.bytes
}

// Failure is one failed attempt, as a dead letter tells it.
type Failure struct {
	Attempt uint64       `json:"attempt"`
	Time    time.Time    `json:"time"`
	Error   string       `json:"error"`
	SpanID  fleet.SpanID `json:"span_id,omitzero"`
	Life    uint64       `json:"life,omitempty"` // how many redrives came before it
}

// fate is how an attempt ended.
type fate int

const (
	acked       fate = iota // 2xx, or an acknowledgement
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
	status     int           // of HTTP
	grpcStatus int           // of gRPC, where that answered
	reason     string        // Shoal-Reason, or what went wrong
	text       string        // a line for people
	retryAfter time.Duration // the receiver's wish; 0: none
	hold       bool          // the wish is for all deliveries: 429 or 503
	overload   bool          // it cannot take as many at once: 429, 503, or no answer in time
	span       fleet.SpanID  // of the attempt
}

func newWindow(c cursor, l limits) *window {
	return &window{limits: l, cursor: c, head: c.floor, next: c.floor, nextSeq: c.seq,
		leases: make(map[uint64]*lease), runs: make(map[string]*run)}
}

// add queues a batch that was committed or read, as far as it is what comes next and fits.
func (w *window) add(b *batch) {
	w.head = max(w.head, b.end())
	if w.next >= b.end() {
		return
	}
	var wanted bits
	if w.limits.filter != nil {
		wanted = w.limits.filter(b)
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
		if wanted != nil && !wanted.has(i) || r.only != "" && r.only != w.cursor.name {
			w.cursor.settle(offset, offset+1)
			continue
		}
		if w.leases[offset] == nil && !w.cursor.isSettled(offset) {
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
	return w.next < w.head && len(w.queue) <= windowQueue/8 && !w.full() && len(w.leases) < w.limits.leases
}

// skip says that nothing is kept before offset: retention removed it. It returns how many records were lost.
func (w *window) skip(offset uint64) (lost uint64) {
	lost = w.cursor.settle(w.next, offset)
	w.next = max(w.next, offset)
	return lost
}

// dropBefore settles what was committed before offset and is not in flight: it is too old. It returns how many records that were.
func (w *window) dropBefore(offset uint64) (lost uint64) {
	for _, l := range w.leases {
		if l.offset < offset && l.state == waiting {
			w.settle(l)
			lost++
		}
	}
	at := w.cursor.floor
	for at < min(offset, w.head) {
		if w.leases[at] == nil {
			lost += w.cursor.settle(at, at+1)
		}
		at++
	}
	w.next = max(w.next, min(offset, w.head))
	return lost
}

// start returns what h is to get now, or nil: first what follows in its own runs, then what is due again, then what
// comes next. What keeps failing takes turns with what comes next.
func (w *window) start(now time.Time, h *holder) *lease {
	if h.full() || h.push && w.pausedFor(now, h) {
		return nil
	}
	for {
		l, mine := w.pick(now, h)
		if l == nil {
			return nil
		}
		if mine {
			w.fly(l, h)
			return l
		}
	}
}

// pick takes the next lease from where it waits. mine is false for one that may not start yet.
func (w *window) pick(now time.Time, h *holder) (l *lease, mine bool) {
	if l := h.follower(); l != nil {
		return l, true
	}
	if h.push && w.pause.reason != "" && (w.troubled() || w.pause.asked) && w.fresh(now) {
		return w.take(h) // a probe: one that has not failed yet says most
	}
	fresh := w.fresh(now)
	if l := w.retries.first(); l != nil && !l.when.After(now) && !(w.retried && fresh) {
		w.retries.remove(l)
		w.retried = w.cursor.attempts[l.offset] > 0
		return l, true
	}
	if !fresh {
		return nil, false
	}
	l, mine = w.take(h)
	w.retried = w.retried && !mine
	return l, mine
}

// fresh reports whether the queue has a record that may start.
func (w *window) fresh(now time.Time) bool {
	return len(w.queue) > 0 && len(w.leases) < w.limits.leases && !w.notBefore().After(now)
}

// notBefore is when the queue's first record may start.
func (w *window) notBefore() time.Time {
	if w.limits.delay == 0 {
		return time.Time{}
	}
	return w.queue[0].record.time.Add(w.limits.delay)
}

// take makes a lease of the queue's first record.
func (w *window) take(h *holder) (l *lease, mine bool) {
	it := w.queue[0]
	w.queue[0] = item{}
	w.queue = w.queue[1:]
	if w.cursor.isSettled(it.offset) { // acknowledged since it was read
		w.held -= it.record.size()
		return &lease{}, false
	}
	l = &lease{item: it, at: it.record.time, index: -1}
	if key := it.record.key; w.limits.ordered && key != "" {
		return l, w.join(l, key, h)
	}
	w.leases[l.offset] = l
	return l, true
}

// fly puts a lease in flight.
func (w *window) fly(l *lease, h *holder) {
	l.state, l.holder = flying, h
	l.attempt = w.cursor.attempts[l.offset] + 1
	l.delivery++
	l.sure = false
	w.inFlight++
	h.count++
	if l.record != nil {
		h.size += len(l.record.Data)
	}
	if l.run != nil {
		w.lead(l, h)
	}
}

// land takes a lease out of flight.
func (w *window) land(l *lease) {
	if l.state != flying {
		return
	}
	l.state = waiting
	w.deadlines.remove(l)
	w.inFlight--
	l.holder.count--
	if l.record != nil {
		l.holder.size -= len(l.record.Data)
	}
	if l.holder.count == 0 {
		l.holder.size = 0
	}
	l.holder, l.when = nil, time.Time{}
}

// expire returns the lease whose deadline passed first, or nil.
func (w *window) expire(now time.Time) *lease {
	if l := w.deadlines.first(); l != nil && !l.when.After(now) {
		return l
	}
	return nil
}

// wake returns when start may give h something that it does not give now; ok is false where no
// passing of time changes that.
func (w *window) wake(h *holder) (at time.Time, ok bool) {
	if l := w.retries.first(); l != nil {
		at, ok = l.when, true
	}
	if len(w.queue) > 0 && len(w.leases) < w.limits.leases {
		if from := w.notBefore(); !ok || from.Before(at) {
			at, ok = from, true
		}
	}
	if h.full() || h.push && w.pause.reason != "" && h.count > 0 {
		ok = false
	}
	if h.push && at.Before(w.pause.until) {
		at = w.pause.until
	}
	return at, ok
}

// gives reports whether start may have something for h now. It has nothing for who is full, whatever follows in its runs.
func (w *window) gives(now time.Time, h *holder) bool {
	at, ok := w.wake(h)
	return ok && !at.After(now) || len(h.ready) > 0 && !h.full()
}

// end takes an attempt's outcome. It reports whether the cursor changed.
func (w *window) end(l *lease, o outcome, now time.Time) (changed bool) {
	w.land(l)
	switch o.fate {
	case acked:
		if l.run != nil && l.run.leases[0] != l {
			l.state = held
			return false
		}
		w.settle(l)
		return true
	case buried, expired:
		if o.fate == buried {
			w.cursor.dead++
		}
		w.settle(l)
		return true
	}
	w.void(l)
	l.state = waiting
	switch o.fate {
	case failed:
		w.cursor.failed(l.offset, Failure{Attempt: l.attempt, Time: now.UTC(), Error: o.text, SpanID: o.span})
		w.wait(l, now.Add(max(w.backoff(int(min(l.attempt, 64))), o.retryAfter)))
		return true
	case unread:
		w.wait(l, now.Add(max(w.limits.maxBackoff, readAgain)))
	default:
		w.wait(l, now.Add(o.retryAfter)) // after others that wait, so that it is not always the same one that is tried
	}
	return false
}

// spent reports whether a failure of l would be its last.
func (w *window) spent(l *lease) bool {
	return w.limits.attempts > 0 && w.cursor.attempts[l.offset]+1 >= w.limits.attempts
}

// notes returns the failures of an offset, as far as they are known.
func (w *window) notes(offset uint64) []Failure { return slices.Clone(w.cursor.notes[offset]) }

// leave takes a lease out of flight, and of all waiting, until it is buried.
func (w *window) leave(l *lease) {
	w.land(l)
	w.void(l)
	l.state = leaving
}

// settle ends a lease for good.
func (w *window) settle(l *lease) {
	w.retries.remove(l)
	w.drop(l)
	delete(w.leases, l.offset)
	w.cursor.settle(l.offset, l.offset+1)
	if l.run != nil {
		w.advance(l)
	}
}

// wait puts a lease back until when. Records of many waiting leases are dropped, and read again when due.
func (w *window) wait(l *lease, when time.Time) {
	l.when = when
	if w.held > windowBytes {
		w.drop(l)
	}
	if l.run == nil || l.run.leases[0] == l {
		heap.Push(&w.retries, l)
	}
}

func (w *window) drop(l *lease) {
	if l.record != nil {
		w.held -= l.record.size()
		l.record = nil
	}
}

// backoff is the wait after the nth failure in a row: exponential, its upper half random, so that
// receivers are not struck in step, and never below the policy's minimum.
func (w *window) backoff(n int) time.Duration {
	if w.limits.maxBackoff == 0 {
		return 0
	}
	d := max(w.limits.minBackoff, 1)
	for ; n > 1 && d < w.limits.maxBackoff; n-- {
		d *= 2
	}
	d = min(d, w.limits.maxBackoff)
	least := max(d/2, min(d, w.limits.minBackoff))
	return least + rand.N(d-least+1)
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
	for _, r := range w.runs {
		if r.left != nil {
			w.cursor.seq = min(w.cursor.seq, r.left.seq)
		}
	}
	return w.cursor.encode()
}

// oldest returns when the oldest unsettled record was committed, as far as it is in memory.
func (w *window) oldest() (at time.Time) {
	first := w.head
	for _, l := range w.leases {
		if l.offset < first {
			first, at = l.offset, l.at
		}
	}
	if len(w.queue) > 0 && w.queue[0].offset < first {
		at = w.queue[0].record.time
	}
	return at
}

// schedule holds leases by when, then by offset: what became due together goes in order.
type schedule []*lease

func (s schedule) first() *lease {
	if len(s) == 0 {
		return nil
	}
	return s[0]
}

// remove takes l out, where it is in.
func (s *schedule) remove(l *lease) {
	if l.index >= 0 && l.index < len(*s) && (*s)[l.index] == l {
		heap.Remove(s, l.index)
	}
}

func (s schedule) Len() int { return len(s) }
func (s schedule) Less(i, j int) bool {
	if s[i].when.Equal(s[j].when) {
		return s[i].offset < s[j].offset
	}
	return s[i].when.Before(s[j].when)
}
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}
func (s *schedule) Push(x any) {
	l := x.(*lease)
	l.index = len(*s)
	*s = append(*s, l)
}
func (s *schedule) Pop() any {
	old := *s
	l := old[len(old)-1]
	old[len(old)-1] = nil
	l.index = -1
	*s = old[:len(old)-1]
	return l
}
