//go:build unix

package growing

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// TestMessagesLieOutside: messages, cursors and resources survive the broker, since they lie on the server; what is asked for once is kept.
func TestMessagesLieOutside(t *testing.T) {
	one := servers(t, 1, settings{})
	dir := t.TempDir()
	k := newBench(t, dir, engine(one, "shop"))
	for _, class := range []fleet.Durability{fleet.DurabilityDisk, fleet.DurabilityOS, fleet.DurabilityMemory} {
		k.make("t-"+string(class), class)
		k.mustSay("t-"+string(class), "a", "b", "c")
		if got := k.take("t-"+string(class), 1); got != "a" {
			t.Errorf("%s: got %q", class, got)
		}
	}
	if st := k.Engine(); st.Servers != 1 || st.Unsynced != "" || st.Away != "" || strings.Contains(fmt.Sprint(st), "s3cret") {
		t.Errorf("status %+v", st)
	}
	k.stop()
	k = newBench(t, dir, fleet.Engine{}) // as if shoal.work did not say it any more
	for _, class := range []fleet.Durability{fleet.DurabilityDisk, fleet.DurabilityOS, fleet.DurabilityMemory} {
		k.mustSay("t-"+string(class), "d")
		if got := k.take("t-"+string(class), 3); got != "b c d" {
			t.Errorf("%s: after a restart %q", class, got)
		}
	}
}

// TestServerGoesAndComes: while the server is dead, or hangs, publishes fail at once or in time, saying why; afterwards everything goes on.
func TestServerGoesAndComes(t *testing.T) {
	for _, fault := range []string{"killed", "hanging"} {
		t.Run(fault, func(t *testing.T) {
			one := servers(t, 1, settings{})
			k := newBench(t, t.TempDir(), engine(one, "shop"))
			k.make("orders", fleet.DurabilityDisk)
			k.mustSay("orders", "a", "b")
			if fault == "killed" {
				one[0].kill()
			} else {
				one[0].pause()
			}
			refused(t, k.say("orders", "", "lost"), unavailable, "nats://127.0.0.1", "does not answer")
			eventually(t, "the status says it", func() bool { return k.Engine().Away != "" })
			if fault == "killed" {
				one[0].start()
			} else {
				one[0].resume()
			}
			eventually(t, "publishing goes on", func() bool { return k.say("orders", "", "c") == nil })
			// what was refused may have been accepted all the same: its publisher was told so
			got := k.take("orders", 3)
			if got == "a b lost" {
				got = strings.Replace(got+" "+k.take("orders", 1), " lost", "", 1)
			}
			if got != "a b c" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestStartsWithoutServer: the broker opens, keeps desired state, refuses what it cannot know, and goes on once the server is there.
func TestStartsWithoutServer(t *testing.T) {
	one := servers(t, 1, settings{})
	dir := t.TempDir()
	k := newBench(t, dir, engine(one, "shop"))
	k.make("orders", fleet.DurabilityDisk)
	k.mustSay("orders", "a")
	k.stop()
	one[0].kill()

	k = newBench(t, dir, engine(one, "shop"))
	if err := k.Store().Put(t.Context(), "some", []byte("state")); err != nil {
		t.Errorf("desired state: %v", err)
	}
	k.Install(&fleet.Snapshot{Fleet: "shop", Version: 1, Services: []*fleet.Service{{Name: "mailer", Version: 1, Deployed: true,
		Manifest: fleet.Manifest{Service: "mailer", Publishes: []string{"mail.sent"}}}}})
	refused(t, k.say("mail.sent", "", "x"), unavailable, "does not answer")
	refused(t, k.say("orders", "", "x"), unavailable, "does not answer")
	_, err := k.Subscription(t.Context(), "orders-sub")
	refused(t, err, unavailable)
	one[0].start()
	eventually(t, "publishing goes on", func() bool { return k.say("mail.sent", "", "b") == nil })
	if got := k.take("orders", 1); got != "a" {
		t.Errorf("got %q", got)
	}
}

// TestTwoFleetsOneServer: a second fleet in the same account is refused, and told what to do; in an account of its own it is not.
func TestTwoFleetsOneServer(t *testing.T) {
	one := servers(t, 1, settings{})
	k := newBench(t, t.TempDir(), engine(one, "shop"))
	k.make("orders", fleet.DurabilityDisk)
	k.mustSay("orders", "a")

	second := newBench(t, t.TempDir(), engine(one, "shop"), func(c *broker.Config) { c.Fleet = "bank" })
	_, err := second.CreateTopic(t.Context(), op, broker.TopicConfig{Name: "orders"})
	refused(t, err, unavailable, "belong to a hub of fleet shop", "account of its own")
	third := newBench(t, t.TempDir(), engine(one, "other"), func(c *broker.Config) { c.Fleet = "bank" })
	third.make("orders", fleet.DurabilityDisk)
	third.mustSay("orders", "b")
	if got := k.take("orders", 1) + third.take("orders", 1); got != "ab" {
		t.Errorf("got %q", got)
	}
}

// TestDiskNeedsProof: topics of class `disk` are refused where nothing proves that the server syncs; `os` is not.
func TestDiskNeedsProof(t *testing.T) {
	syncs, lazy := servers(t, 1, settings{}), servers(t, 1, settings{sync: "2m"})
	system := func(of []*natsNode) func(e *fleet.Engine) {
		return func(e *fleet.Engine) { e.Monitor, e.System = nil, of[0].url("sys") }
	}
	for _, c := range []struct {
		name   string
		on     []*natsNode
		change func(*fleet.Engine)
		says   string // empty: proven
	}{
		{"monitor", syncs, func(*fleet.Engine) {}, ""},
		{"system account", syncs, system(syncs), ""},
		{"nothing", syncs, func(e *fleet.Engine) { e.Monitor = nil }, "Give its monitoring URL"},
		{"monitor of another", syncs, func(e *fleet.Engine) { e.Monitor = []string{"http://127.0.0.1:1"} }, "refused"},
		{"no system account", syncs, func(e *fleet.Engine) { e.Monitor, e.System = nil, e.URL }, "not of the system account"},
		{"it does not sync", lazy, func(*fleet.Engine) {}, "sync_interval: always"},
		{"it does not sync, says the system account", lazy, system(lazy), "sync_interval: always"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := engine(c.on, "shop")
			c.change(&at)
			k := newBench(t, t.TempDir(), at)
			k.make("disk", fleet.DurabilityDisk)
			k.make("os", fleet.DurabilityOS)
			k.mustSay("os", "a")
			err := k.say("disk", "", "a")
			switch {
			case c.says == "" && err != nil:
				t.Error(err)
			case c.says != "":
				refused(t, err, unavailable, c.says, "durability: os")
			}
			k.stop()
			c.on[0].forget("shop")
		})
	}
}

// forget removes everything of an account.
func (s *natsNode) forget(user string) {
	s.t.Helper()
	js, end := s.jetstream(user)
	defer end()
	for _, name := range s.streams(user) {
		if err := js.DeleteStream(s.t.Context(), name); err != nil {
			s.t.Fatal(err)
		}
	}
}

// streams are those of an account.
func (s *natsNode) streams(user string) (names []string) {
	s.t.Helper()
	js, end := s.jetstream(user)
	defer end()
	for name := range js.StreamNames(s.t.Context()).Name() {
		names = append(names, name)
	}
	return names
}

func (s *natsNode) jetstream(user string) (js jetstream.JetStream, end func()) {
	s.t.Helper()
	conn, err := nats.Connect(s.url(user), s.options...)
	if err == nil {
		js, err = jetstream.New(conn)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return js, conn.Close
}

// TestSmallPayload: a server that cannot take what the broker writes is refused, with the line to change.
func TestSmallPayload(t *testing.T) {
	one := servers(t, 1, settings{maxPayload: "1MB"})
	k := newBench(t, t.TempDir(), engine(one, "shop"))
	_, err := k.CreateTopic(t.Context(), op, broker.TopicConfig{Name: "orders"})
	refused(t, err, unavailable, "max_payload: 40MB")
}
