//go:build unix

package e2e

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
)

// downs is how often a fleet is stopped in the middle of a fault.
const downs = 6

// Hub and node start each other again: whichever of them is just dead, starting or ending when `down` is
// run, nothing is left after it, and nothing comes back.
func TestDownAtAnyMoment(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, built)
		for i := range downs {
			w.up()
			w.expect("web", "/", "web v1")
			switch i % 3 {
			case 0: // one that was just started again
				kind := []string{"hub", "node"}[i/3%2]
				w.killNow(kind)
				w.eventually("another "+kind+" starts", func() bool { return len(w.pids(kind)) > 0 })
				w.downInAnyCase()
			case 1: // both may be dead, or being started again
				w.killNow("hub")
				w.killNow("node")
				w.moment()
				w.downInAnyCase()
			case 2: // it dies while it stops
				verb := w.start("down")
				w.moment()
				w.killNow("hub", "node")
				w.ended(verb)
				w.downInAnyCase()
			}
			w.expectNoProcesses()
			if t.Failed() {
				t.Fatalf("in round %d", i)
			}
		}
	})
}

// ended waits until a verb has ended by itself.
func (w *world) ended(b *background) {
	w.Helper()
	w.eventually(strings.Join(b.Args[1:], " ")+" ends", func() bool {
		select {
		case <-b.done:
			return true
		default:
			return false
		}
	})
}

// downInAnyCase runs `down` where something may be left to stop.
func (w *world) downInAnyCase() {
	w.Helper()
	if out, errs, code := w.try("down"); code != 0 && !strings.Contains(errs, "no fleet is running") {
		w.Errorf("down: exit code %d\n%s%s", code, out, errs)
	}
}

// killNow kills all processes of one of the kinds named, if there are any at this moment.
func (w *world) killNow(kinds ...string) {
	for _, pid := range w.pids(kinds[rand.IntN(len(kinds))]) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// moment lets a random time pass in which hub and node go on.
func (w *world) moment() {
	for range rand.IntN(40) { // each takes some milliseconds
		_, _, _ = w.try("version")
	}
}
