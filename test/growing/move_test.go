//go:build unix

package growing

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// TestMoveThereAndBack moves a broker that works to three servers and back: nothing acknowledged is lost, order per key holds, nothing
// that was acknowledged comes again; dead letters, scheduled messages, snapshots, cursors and what was published lately move along.
func TestMoveThereAndBack(t *testing.T) {
	three := servers(t, 3, settings{})
	dir := t.TempDir()
	k := newBench(t, dir, fleet.Engine{})
	for _, class := range []fleet.Durability{fleet.DurabilityDisk, fleet.DurabilityOS, fleet.DurabilityMemory} {
		k.make("quiet-"+string(class), class)
		k.mustSay("quiet-"+string(class), "a", "b", "c", "d")
		if got := k.take("quiet-"+string(class), 1); got != "a" {
			t.Errorf("got %q", got)
		}
	}
	k.make("busy", fleet.DurabilityDisk)
	k.furnish()
	checkers := []*checker{check(t, k, "busy")}
	checkers[0].runs(500)

	for i, to := range []fleet.Engine{engine(three, "shop"), {}} {
		planned, err := k.Move(t.Context(), to, true, func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		if total(planned) == 0 || !planned.Dry {
			t.Errorf("a dry run says %+v", planned)
		}
		moved, err := k.Move(t.Context(), to, false, func(s string) { t.Log(s) })
		if err != nil {
			t.Fatal(err)
		}
		if total(moved) < total(planned) || moved.To != to.String() || k.Engine().Engine != to.String() {
			t.Errorf("moved %+v, planned %+v, now %+v", moved, planned, k.Engine())
		}
		checkers[0].runs(200)
		for _, class := range []fleet.Durability{fleet.DurabilityDisk, fleet.DurabilityOS, fleet.DurabilityMemory} {
			if got, want := k.take("quiet-"+string(class), 1), string("bc"[i]); got != want {
				t.Errorf("%s: got %q, want %q", class, got, want)
			}
		}
		k.furnished(i)
	}
	if again := checkers[0].finish(); again != 0 {
		t.Errorf("%d messages came again after their acknowledgement was taken", again)
	}
	three[0].empty("shop")
	k.stop()
	k = newBench(t, dir, fleet.Engine{})
	if got := k.take("quiet-disk", 1); got != "d" {
		t.Errorf("after a restart got %q", got)
	}
}

func total(m fleet.EngineMove) (n uint64) {
	for _, p := range m.Parts {
		n += p.Messages
	}
	return n
}

// furnish gives a broker one of everything that it keeps.
func (k *bench) furnish() {
	k.t.Helper()
	ctx := k.t.Context()
	k.make("odd", fleet.DurabilityDisk)
	if _, err := k.CreateSubscription(ctx, op, broker.SubscriptionConfig{Name: "poison", Topic: "odd", DeadLetter: &broker.DeadLetterPolicy{Attempts: 5}}); err != nil {
		k.t.Fatal(err)
	}
	k.mustSay("odd", "1", "2", "3")
	if _, err := k.CreateSnapshot(ctx, op, "odd-sub", broker.SnapshotConfig{Name: "before"}); err != nil {
		k.t.Fatal(err)
	}
	if got := k.take("odd", 3); got != "1 2 3" {
		k.t.Errorf("got %q", got)
	}
	r, err := k.NewReceiver(ctx, op, "poison", broker.ReceiverConfig{})
	if err != nil {
		k.t.Fatal(err)
	}
	defer r.Close()
	got, err := r.Receive(ctx, 1, 0)
	if err != nil {
		k.t.Fatal(err)
	}
	if _, err := k.Reject(ctx, op, "poison", []string{got[0].AckID}, "bad"); err != nil {
		k.t.Fatal(err)
	}
	eventually(k.t, "there is a dead letter", func() bool { return len(k.letters()) == 1 })
	for i := range 3 {
		at := broker.Event{Topic: "odd", ID: fmt.Sprint("later-", i), Source: "test", Type: "odd", Data: []byte("later"), NotBefore: time.Now().Add(time.Hour)}
		if _, err := k.Publish(ctx, op, at); err != nil {
			k.t.Fatal(err)
		}
	}
	k.known()
}

// known publishes the same event each time.
func (k *bench) known() {
	k.t.Helper()
	if _, err := k.Publish(k.t.Context(), op, broker.Event{Topic: "odd", ID: "once", Source: "test", Type: "odd", Data: []byte("once")}); err != nil {
		k.t.Fatal(err)
	}
}

func (k *bench) letters() []broker.DeadLetter {
	k.t.Helper()
	all, _, err := k.DeadLetters(k.t.Context(), broker.DeadLetterQuery{})
	if err != nil {
		k.t.Fatal(err)
	}
	return all
}

// furnished wants all that furnish made, after so many moves.
func (k *bench) furnished(moves int) {
	k.t.Helper()
	if all := k.letters(); len(all) != 1 || all[0].Failures[len(all[0].Failures)-1].Error != "bad" {
		k.t.Errorf("dead letters: %+v", all)
	}
	if n, next := k.Scheduled(); n != 3-moves || time.Until(next) < 50*time.Minute {
		k.t.Errorf("%d are scheduled, the next at %v", n, next)
	}
	if err := k.CancelScheduled(k.t.Context(), op, "odd", fmt.Sprint("scheduled-", moves)); err != nil {
		k.t.Error(err)
	}
	k.known() // and not committed again
	if _, err := k.SeekSnapshot(k.t.Context(), op, "odd-sub", "before", false); err != nil {
		k.t.Fatal(err)
	}
	if got := k.take("odd", 4); got != "1 2 3 once" {
		k.t.Errorf("after the snapshot got %q", got)
	}
}

// empty wants no streams of ours on a server.
func (s *natsNode) empty(user string) {
	s.t.Helper()
	if names := s.streams(user); len(names) > 0 {
		s.t.Errorf("left behind: %v", names)
	}
}

// TestMoveIsCutOff ends a move at any point: the messages stay where they are, and another attempt succeeds.
func TestMoveIsCutOff(t *testing.T) {
	one := servers(t, 1, settings{})
	k := newBench(t, t.TempDir(), fleet.Engine{})
	k.make("orders", fleet.DurabilityDisk)
	c := check(t, k, "orders")
	c.runs(300)
	for cut := range 4 {
		ctx, cancel := context.WithCancel(t.Context())
		told := 0
		_, err := k.Move(ctx, engine(one, "shop"), false, func(string) {
			if told++; told > cut/2 {
				cancel()
			}
		})
		cancel()
		if err == nil { // it was quicker
			if _, err := k.Move(t.Context(), fleet.Engine{}, false, func(string) {}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if k.Engine().Engine != "embedded" {
			t.Fatalf("%+v after %v", k.Engine(), err)
		}
		c.runs(50)
	}
	one[0].kill()
	if _, err := k.Move(t.Context(), engine(one, "shop"), false, func(string) {}); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v", err)
	}
	one[0].start()
	one[0].await()
	if _, err := k.Move(t.Context(), engine(one, "shop"), false, func(string) {}); err != nil {
		t.Fatal(err)
	}
	c.runs(100)
	if again := c.finish(); again != 0 {
		t.Errorf("%d came again", again)
	}
}

// TestMoveNeedsProof: a fleet with topics of class `disk` does not move to a server that does not sync.
func TestMoveNeedsProof(t *testing.T) {
	lazy := servers(t, 1, settings{sync: "2m"})
	k := newBench(t, t.TempDir(), fleet.Engine{})
	k.make("orders", fleet.DurabilityDisk)
	k.mustSay("orders", "a")
	_, err := k.Move(t.Context(), engine(lazy, "shop"), false, func(string) {})
	refused(t, err, 412, "sync_interval: always", "orders")
	if k.Engine().Engine != "embedded" {
		t.Errorf("it moved: %+v", k.Engine())
	}
	lazy[0].empty("shop")
	k.mustSay("orders", "b")
	if got := k.take("orders", 2); got != "a b" {
		t.Errorf("got %q", got)
	}
}

// TestMoveOfQuickPublishers: publishers that never pause, and are quicker than copying, are slowed until little is left; the hold is short, and told.
func TestMoveOfQuickPublishers(t *testing.T) {
	one := servers(t, 1, settings{})
	k := newBench(t, t.TempDir(), fleet.Engine{})
	k.make("orders", fleet.DurabilityDisk)
	c := checkPaced(t, k, "orders", 0)
	c.runs(5000)
	for _, to := range []fleet.Engine{engine(one, "shop"), {}} {
		var said []string
		moved, err := k.Move(t.Context(), to, false, func(s string) { said = append(said, s) })
		if err != nil {
			t.Fatalf("%v\n%s", err, strings.Join(said, "\n"))
		}
		t.Log(strings.Join(said, "; "))
		if moved.Held <= 0 || moved.Held > holdMost || !strings.HasPrefix(said[len(said)-1], "publishes were held for ") {
			t.Errorf("held for %v; it said %q", moved.Held, said)
		}
		c.runs(500)
	}
	if again := c.finish(); again != 0 {
		t.Errorf("%d came again", again)
	}
	if _, refused := c.count(); refused > 0 {
		t.Errorf("%d publishes failed", refused)
	}
}

// holdMost is what docs/growing.md promises.
const holdMost = 30 * time.Second

// TestTargetHangsInTheHold: a server that hangs, or dies, while publishes are held ends the move, and what waited is published where it was.
func TestTargetHangsInTheHold(t *testing.T) {
	for _, fault := range []string{"hanging", "killed"} {
		t.Run(fault, func(t *testing.T) {
			one := servers(t, 1, settings{})
			k := newBench(t, t.TempDir(), fleet.Engine{})
			k.make("orders", fleet.DurabilityDisk)
			c := check(t, k, "orders")
			c.runs(300)
			_, err := k.Move(t.Context(), engine(one, "shop"), false, func(said string) {
				if said != "publishes are held" {
					return
				}
				if fault == "killed" {
					one[0].kill()
				} else {
					one[0].pause()
				}
			})
			refused(t, err, unavailable, "stay where they were", "does not answer")
			c.runs(100)
			if at := k.Engine(); at.Engine != "embedded" {
				t.Errorf("%+v", at)
			}
			if fault == "killed" {
				one[0].start()
			} else {
				one[0].resume()
			}
			one[0].await()
			if _, err := k.Move(t.Context(), engine(one, "shop"), false, func(string) {}); err != nil {
				t.Fatal(err)
			}
			c.runs(100)
			if again := c.finish(); again != 0 {
				t.Errorf("%d came again", again)
			}
			if _, refused := c.count(); refused > 0 {
				t.Errorf("%d publishes failed", refused)
			}
			if c.slowest > holdMost {
				t.Errorf("a publish waited for %v", c.slowest)
			}
		})
	}
}
