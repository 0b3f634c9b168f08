package broker

import (
	"fmt"
	"time"
)

// pause is why nothing is pushed.
type pause struct {
	reason string    // the receiver cannot be reached, or fails everything; empty: all is well
	tries  int       // probes that failed
	until  time.Time // nothing starts before
}

// trouble counts failures since the last success: of different messages, since one poison message is no sign of a
// receiver that is down.
type trouble struct {
	offsets map[uint64]bool
}

// troubleMost is how many different messages must fail in a row.
const troubleMost = 8

// pausedFor reports whether pushes wait: all of them, or all but one probe.
func (w *window) pausedFor(now time.Time, h *holder) bool {
	return now.Before(w.pause.until) || w.pause.reason != "" && h.count > 0
}

// learn judges the receiver by the end of one push. While it fails everything, an attempt is a probe, and does not count.
func (w *window) learn(l *lease, o *outcome, now time.Time) {
	switch o.fate {
	case acked, buried, expired:
		w.pause.reason, w.pause.tries = "", 0
		clear(w.trouble.offsets)
	case unreachable:
		w.pauseFor(o.text, now)
	case failed:
		w.failing(l, o, now)
	}
}

// troubled reports whether the receiver fails everything.
func (w *window) troubled() bool { return len(w.trouble.offsets) >= troubleMost }

func (w *window) failing(l *lease, o *outcome, now time.Time) {
	if w.trouble.offsets == nil {
		w.trouble.offsets = make(map[uint64]bool)
	}
	if w.pause.reason != "" && !w.troubled() {
		w.pause.reason, w.pause.tries = "", 0 // it was out of reach, and is there again
	}
	if !w.troubled() {
		w.trouble.offsets[l.offset] = true
	}
	if !w.troubled() {
		return
	}
	if w.pause.reason != "" {
		o.fate = unreachable
	}
	w.pauseFor(fmt.Sprintf("the last %d messages failed one after another; they wait, and one at a time is tried until one succeeds. The last answer: %s", troubleMost, o.text), now)
}

// pauseFor stops pushes until a probe gets through. Failures of what was in flight together count once.
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
