package broker

import (
	"container/heap"
	"slices"
	"time"
)

// run is what a window holds of one ordering key: its unsettled messages in order, of which the first ones are in flight, to
// one holder. A failure voids what follows it: that is delivered again, after it, in order. So a message of a key begins only
// when all before it are settled, or in flight to the same holder. Once one failed, the next waits until it is settled.
type run struct {
	key    string
	leases []*lease // by offset
	// left is the first message of the key that is not held here, since there are too many: a key that is stuck must not keep
	// others from being read. It is read again when the run is over.
	left *item
}

// runMost bounds what is held of one stuck key.
const runMost = 1024

// join puts a new lease into its key's run, and reports whether h may have it now.
func (w *window) join(l *lease, key string, h *holder) bool {
	r := w.runs[key]
	if r == nil {
		r = &run{key: key}
		w.runs[key] = r
	}
	if r.left != nil || len(r.leases) >= runMost {
		if r.left == nil {
			r.left = &item{offset: l.offset, seq: l.seq}
		}
		w.drop(l)
		return false
	}
	l.run = r
	r.leases = append(r.leases, l)
	w.leases[l.offset] = l
	if w.follows(l, h) {
		return true
	}
	if w.held > windowBytes/2 {
		w.drop(l)
	}
	return false
}

// follows reports whether l may start now that all before it in its run did.
func (w *window) follows(l *lease, h *holder) bool {
	r := l.run
	if r.leases[0] == l {
		return true
	}
	at := slices.Index(r.leases, l)
	if h.push || w.cursor.attempts[r.leases[0].offset] > 0 || w.cursor.attempts[l.offset] > 0 {
		return false
	}
	for _, before := range r.leases[:at] {
		if before.state == waiting || before.state == leaving || before.state == flying && before.holder != h {
			return false
		}
	}
	return true
}

// lead makes what comes after l in its run h's next, where h may have both in flight.
func (w *window) lead(l *lease, h *holder) {
	at := slices.Index(l.run.leases, l) + 1
	if at == len(l.run.leases) {
		return
	}
	if next := l.run.leases[at]; next.state == waiting && next.holder == nil && w.follows(next, h) {
		next.holder = h
		h.ready = append(h.ready, next)
	}
}

// follower takes what follows in one of h's runs, or returns nil.
func (h *holder) follower() *lease {
	for len(h.ready) > 0 {
		l := h.ready[0]
		h.ready[0] = nil
		h.ready = h.ready[1:]
		if l.state == waiting && l.holder == h {
			return l
		}
	}
	return nil
}

// void takes what follows l in its run out of flight: it comes again after l. No attempt of it was used.
func (w *window) void(l *lease) {
	if l.run == nil {
		return
	}
	for _, after := range l.run.leases[slices.Index(l.run.leases, l)+1:] {
		if after.state == leaving {
			continue
		}
		if after.told != nil {
			w.voided, after.told = append(w.voided, after.told), nil
		}
		w.land(after)
		after.state, after.holder = waiting, nil
	}
}

// advance removes l, which is settled, from its run, and lets the next begin.
func (w *window) advance(l *lease) {
	r := l.run
	if i := slices.Index(r.leases, l); i >= 0 {
		r.leases = slices.Delete(r.leases, i, i+1)
	}
	if len(r.leases) == 0 {
		delete(w.runs, r.key)
		if r.left != nil {
			w.rewind(*r.left)
		}
		return
	}
	first := r.leases[0]
	switch first.state {
	case held:
		w.settle(first)
	case waiting:
		first.holder = nil
		if first.index < 0 {
			heap.Push(&w.retries, first)
		}
	}
}

// rewind reads on from an earlier place. What is settled or leased is not queued again.
func (w *window) rewind(to item) {
	if to.offset >= w.next {
		return
	}
	for _, it := range w.queue {
		w.held -= it.record.size()
	}
	w.queue, w.next, w.nextSeq = nil, to.offset, to.seq
}

// release lets go of what only a holder that left could have. What was on its way to it, and may not have arrived, it has until a time.
func (w *window) release(h *holder, until time.Time) {
	h.gone = true
	for _, l := range w.leases {
		if l.state == flying && l.holder == h && !l.sure && l.when.After(until) {
			w.expireAt(l, until)
		}
	}
	for l := h.follower(); l != nil; l = h.follower() {
		l.holder = nil
	}
}

// stuckAfter is how many failures of its first message make a key stuck.
const stuckAfter = 5

// stuckKeys is how many ordering keys are stuck.
func (w *window) stuckKeys() (n int) {
	for _, r := range w.runs {
		if w.cursor.attempts[r.leases[0].offset] >= stuckAfter {
			n++
		}
	}
	return n
}

// stuck returns the ordering key that has failed most often, where that is often, and how many of its messages are
// held; and whether there are more.
func (w *window) stuck() (key string, attempts uint64, messages int, left bool) {
	for _, r := range w.runs {
		if n := w.cursor.attempts[r.leases[0].offset]; n >= stuckAfter && n > attempts {
			key, attempts, messages, left = r.key, n, len(r.leases), r.left != nil
		}
	}
	return key, attempts, messages, left
}
