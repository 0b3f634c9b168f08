package broker

import (
	"fmt"
	"time"
)

// pause is why nothing is pushed.
type pause struct {
	reason string    // the receiver cannot be reached, fails everything, or asked to be left alone; empty: all is well
	since  time.Time // when it began
	tries  int       // probes that failed
	until  time.Time // nothing starts before
	asked  bool      // until is the receiver's own wish
}

// trouble counts failures since the last success, and of how many messages they are: one or two that are poison are no sign of a
// receiver that is down.
type trouble struct {
	failures int
	offsets  map[uint64]bool
}

// A receiver fails everything when so many attempts failed in a row, of so many different messages. Where few ordering keys have messages, no more than
// those can be tried.
const (
	troubleFailures = 8
	troubleMessages = 3
)

// pausedFor reports whether pushes wait: all of them, or all but one probe.
func (w *window) pausedFor(now time.Time, h *holder) bool {
	return now.Before(w.pause.until) || w.pause.reason != "" && h.count > 0
}

// judge learns from the end of one push, which may make a failure one that does not count.
func (w *window) judge(l *lease, o *outcome, now time.Time) {
	l.holder.adapt(o)
	switch {
	case o.fate == acked:
		w.acked++
		w.succeeded(now)
	case o.fate == expired:
		w.succeeded(now)
	case o.fate == unreachable:
		w.pauseFor(o.text, now)
	case o.fate == failed && o.hold && o.retryAfter > 0:
		w.obey(l, o, now)
	case o.fate == failed:
		w.failing(l, o, now)
	}
}

// succeeded ends a pause, unless the receiver asked for it and its time is not over.
func (w *window) succeeded(now time.Time) {
	w.trouble = trouble{}
	if !w.leftAlone(now) {
		w.pause = pause{}
	}
}

// leftAlone reports whether the receiver's own wish holds.
func (w *window) leftAlone(now time.Time) bool { return w.pause.asked && now.Before(w.pause.until) }

// obey leaves a receiver alone for as long as it asked. That is its own state, so that the attempt does not count: unless it acknowledged others since
// it asked so for this message, which may be why, then.
func (w *window) obey(l *lease, o *outcome, now time.Time) {
	if !l.refused || l.acked == w.acked {
		o.fate = unreachable
	}
	l.refused, l.acked = true, w.acked
	w.begin(fmt.Sprintf("the subscriber asked to be left alone for %v: %s", o.retryAfter.Round(time.Second), o.text), now)
	w.pause.asked = true
	if until := now.Add(o.retryAfter); until.After(w.pause.until) {
		w.pause.until = until
	}
}

// begin says that nothing is pushed, and why.
func (w *window) begin(reason string, now time.Time) {
	if w.pause.reason == "" {
		w.pause.since = now
	}
	w.pause.reason = reason
}

// troubled reports whether the receiver fails everything.
func (w *window) troubled() bool {
	return w.trouble.failures >= troubleFailures && len(w.trouble.offsets) >= troubleMessages
}

func (w *window) failing(l *lease, o *outcome, now time.Time) {
	if w.pause.reason != "" && !w.troubled() && !w.leftAlone(now) {
		w.pause = pause{} // it was out of reach, and is there again
	}
	if w.troubled() {
		o.fate = unreachable
	}
	w.trouble.add(l.offset)
	if w.troubled() {
		w.pauseFor(fmt.Sprintf("the last %d attempts failed one after another, of different messages; they wait, and one at a time is tried until one succeeds. The last answer: %s", w.trouble.failures, o.text), now)
	}
}

func (t *trouble) add(offset uint64) {
	t.failures++
	if t.offsets == nil {
		t.offsets = make(map[uint64]bool)
	}
	if len(t.offsets) < troubleMessages {
		t.offsets[offset] = true
	}
}

// pauseFor stops pushes until a probe gets through. Failures of what was in flight together count once.
func (w *window) pauseFor(reason string, now time.Time) {
	if now.Before(w.pause.until) {
		return
	}
	w.pause.tries++
	w.pause.asked = false
	w.begin(reason, now)
	w.pause.until = now.Add(w.backoff(w.pause.tries))
}

// resume lets the next probe start at once: what is known of the receiver has changed.
func (w *window) resume() {
	if w.pause.reason != "" {
		w.pause.tries, w.pause.until = 0, time.Time{}
	}
}
