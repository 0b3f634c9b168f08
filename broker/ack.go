package broker

import (
	"container/heap"
	"time"
)

// current returns the lease of a delivery that is in flight, or nil.
func (w *window) current(a ackID, here bool) *lease {
	l := w.leases[a.offset]
	if l == nil || !here || a.turn != w.cursor.turn || l.state != flying || l.delivery != a.delivery {
		return nil
	}
	return l
}

// expireAt gives a puller's lease until when.
func (w *window) expireAt(l *lease, when time.Time) {
	w.deadlines.remove(l)
	l.when = when
	heap.Push(&w.deadlines, l)
}

// ack takes a puller's acknowledgement; here tells one of a delivery by this process. It reports whether the cursor changed.
func (w *window) ack(a ackID, here bool, now time.Time) (changed bool, err error) {
	l := w.current(a, here)
	switch {
	case l != nil && w.limits.exactlyOnce && l.run != nil && l.run.leases[0] != l:
		return false, ErrAckUnordered
	case l != nil:
		return w.end(l, outcome{fate: acked}, now), nil
	case w.limits.exactlyOnce:
		return false, ErrAckID
	}
	return w.lateAck(a, here), nil
}

// lateAck takes an acknowledgement of a delivery that is no longer in flight, or that another process made. It counts where
// it cannot break an order: not for what follows a message that failed, which comes again after that one.
func (w *window) lateAck(a ackID, here bool) (changed bool) {
	if a.turn != w.cursor.turn || a.offset >= w.head || w.cursor.isSettled(a.offset) {
		return false
	}
	l := w.leases[a.offset]
	if l == nil {
		if w.limits.ordered {
			return false
		}
		w.cursor.settle(a.offset, a.offset+1)
		return true
	}
	if l.state == leaving || l.run != nil && (!here || l.run.leases[0] != l || l.delivery != a.delivery) {
		return false
	}
	w.land(l)
	w.settle(l)
	return true
}
