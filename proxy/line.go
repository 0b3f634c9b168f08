package proxy

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// line is where exchanges wait for a callee whose instances all work on as much as their limits allow. It
// is short and nobody stays long: a burst is smoothed, and overload is refused while a refusal is still
// of use. Once the line has not been empty for half of its limit it is a standing queue, which only adds
// delay (Nichols and Jacobson, Controlling Queue Delay, ACM Queue 2012): waiting is cut to a tenth, and the
// latest comer goes first, since its caller most likely still waits (adaptive LIFO: Maurer, Fail at
// Scale, ACM Queue 2015).
type line struct {
	limit  time.Duration // for which one may wait
	length atomic.Int32  // what who leaves looks at

	mu      sync.Mutex // guards all below
	waiters []*waiter  // the longest wait first
	since   int64      // when it was last empty: nanoseconds since the proxy's epoch
}

const lineLength = 1000

// waiter is an exchange in line. wake has room for one.
type waiter struct{ wake chan struct{} }

// join puts w in, at the end or, again after a turn that came to nothing, at the front. patience is how
// long it may wait in all; false: the line is full.
func (l *line) join(w *waiter, again bool, now int64) (patience time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiters) == 0 {
		l.since = now
	}
	if len(l.waiters) >= lineLength {
		return 0, false
	}
	patience = l.limit
	if l.standing(now) {
		patience /= 10
	}
	if again && !l.standing(now) {
		l.waiters = slices.Insert(l.waiters, 0, w)
	} else {
		l.waiters = append(l.waiters, w)
	}
	l.length.Store(int32(len(l.waiters)))
	return patience, true
}

func (l *line) standing(now int64) bool {
	return len(l.waiters) > 0 && now-l.since > int64(l.limit/2)
}

// next gives a turn to one who waits, if anybody does.
func (l *line) next(now int64) {
	if l.length.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.waiters)
	if n == 0 {
		return
	}
	at := 0
	if l.standing(now) {
		at = n - 1
	}
	w := l.waiters[at]
	l.removeLocked(at)
	w.wake <- struct{}{}
}

// quit takes w out. A turn that it had been given meanwhile goes to the next.
func (l *line) quit(w *waiter, now int64) {
	l.mu.Lock()
	at := slices.Index(l.waiters, w)
	if at >= 0 {
		l.removeLocked(at)
	}
	l.mu.Unlock()
	if at >= 0 {
		return
	}
	select {
	case <-w.wake:
		l.next(now)
	default:
	}
}

func (l *line) removeLocked(at int) {
	l.waiters = slices.Delete(l.waiters, at, at+1)
	l.length.Store(int32(len(l.waiters)))
}

// stand waits in line until x is in a place, or for as long as it may. entered is false where there is no
// line to stand in any more, or x.refusal says why it is over.
func (x *exchange) stand() (entered bool) {
	l := &x.route.load.line
	w := &waiter{wake: make(chan struct{}, 1)}
	began := time.Now()
	x.decide(fleet.InLine)
	defer func() { x.obs.Queued += time.Since(began) }()
	var limit time.Duration
	for again := false; ; again = true {
		patience, ok := l.join(w, again, x.p.now())
		if !ok {
			return x.refuse(x.overloaded(0))
		}
		if !again {
			limit = x.lineTime(patience)
		}
		if entered = x.enter(x.choose()); entered || !x.full {
			l.quit(w, x.p.now())
			return entered
		}
		if !x.turn(w, limit-time.Since(began)) {
			l.quit(w, x.p.now())
			return x.refuse(x.impatient(time.Since(began)))
		}
		x.rematch()
	}
}

// lineTime is how long x stands in line: at most half of what its deadline leaves, so that the rest is
// enough for the work.
func (x *exchange) lineTime(patience time.Duration) time.Duration {
	if x.deadline.IsZero() {
		return patience
	}
	return min(patience, time.Until(x.deadline)/2)
}

// turn waits for w's turn; false: it did not come.
func (x *exchange) turn(w *waiter, patience time.Duration) bool {
	const look = 20 * time.Millisecond // for a caller that leaves
	for until := time.Now().Add(patience); ; {
		left := time.Until(until)
		if left <= 0 || x.left() || x.p.ctx.Err() != nil {
			return false
		}
		timer := time.NewTimer(min(left, look))
		select {
		case <-w.wake:
			timer.Stop()
			return true
		case <-timer.C:
		}
	}
}

// impatient is the refusal of an exchange that has stood in line for too long.
func (x *exchange) impatient(waited time.Duration) *refusal {
	switch {
	case x.left():
		return callerGone(x.route.callee)
	case x.p.ctx.Err() != nil:
		return noEndpoint(x.route.callee, "this process is stopping")
	}
	return x.overloaded(waited)
}
