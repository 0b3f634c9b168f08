package proxy

import (
	"testing"
	"time"
)

// The line is first come, first served, until it has stood for too long: then the latest goes first, and
// nobody waits for long.
func TestLineTurnsAround(t *testing.T) {
	l := line{limit: time.Second}
	w := func() *waiter { return &waiter{wake: make(chan struct{}, 1)} }
	first, second, third := w(), w(), w()
	woken := func(w *waiter) bool { return len(w.wake) == 1 }
	for _, one := range []*waiter{first, second} {
		if d, ok := l.join(one, false, 0); !ok || d != time.Second {
			t.Fatal(d, ok)
		}
	}
	l.next(1)
	if !woken(first) || woken(second) {
		t.Error("the first was not served first")
	}
	now := int64(time.Second/2) + 1
	if d, ok := l.join(third, false, now); !ok || d != time.Second/10 {
		t.Errorf("in a standing queue one may wait for %v", d)
	}
	l.next(now)
	if !woken(third) || woken(second) {
		t.Error("the latest was not served first")
	}
	l.next(now)
	if d, _ := l.join(w(), false, now+int64(time.Minute)); d != time.Second || !woken(second) {
		t.Errorf("the line was empty, and one may wait for %v", d)
	}
}

// A turn that comes to somebody who has given up goes to the next.
func TestLineLosesNoTurn(t *testing.T) {
	l := line{limit: time.Second}
	gone, next := &waiter{wake: make(chan struct{}, 1)}, &waiter{wake: make(chan struct{}, 1)}
	l.join(gone, false, 0)
	l.join(next, false, 0)
	l.next(1) // to gone, who leaves at that moment
	l.quit(gone, 2)
	if len(next.wake) != 1 {
		t.Error("the turn is lost")
	}
	l.quit(next, 3)
	if l.length.Load() != 0 || len(l.waiters) != 0 {
		t.Error("somebody is left")
	}
}

func TestLineIsShort(t *testing.T) {
	l := line{limit: time.Second}
	for range lineLength {
		if _, ok := l.join(&waiter{wake: make(chan struct{}, 1)}, false, 0); !ok {
			t.Fatal("full too early")
		}
	}
	if _, ok := l.join(&waiter{wake: make(chan struct{}, 1)}, false, 0); ok {
		t.Error("longer than it may be")
	}
}
