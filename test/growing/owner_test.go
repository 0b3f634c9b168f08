//go:build unix

package growing

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// TestForeignStreamsAreLeftAlone: a stream that has one of our names, or takes our subjects, and is none of Shoal's keeps what it holds,
// whether messages are to begin there or to be moved there.
func TestForeignStreamsAreLeftAlone(t *testing.T) {
	for _, c := range []struct {
		stream, subject, says string
	}{
		{"SHOAL_EVENTS", "theirs.*", "SHOAL_EVENTS"},
		{"SHOAL_CATALOG", "theirs.*", "SHOAL_CATALOG"},
		{"ORDERS", "shoal.>", "`shoal.`"},
	} {
		t.Run(c.stream, func(t *testing.T) {
			one := servers(t, 1, settings{})
			js, end := one[0].jetstream("shop")
			defer end()
			s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: c.stream, Subjects: []string{c.subject}})
			if err == nil {
				_, err = js.Publish(t.Context(), strings.NewReplacer("*", "x", ">", "events.x").Replace(c.subject), []byte("theirs"))
			}
			if err != nil {
				t.Fatal(err)
			}
			k := newBench(t, t.TempDir(), fleet.Engine{})
			k.make("orders", fleet.DurabilityDisk)
			k.mustSay("orders", "a")
			_, err = k.Move(t.Context(), engine(one, "shop"), false, func(string) {})
			refused(t, err, unavailable, c.says, "account of its own")
			begins := newBench(t, t.TempDir(), engine(one, "shop"))
			if away := begins.Engine().Away; !strings.Contains(away, c.says) {
				t.Errorf("the status says %q", away)
			}
			info, err := s.Info(t.Context())
			if err != nil || info.State.Msgs != 1 || len(info.Config.Metadata[jetstreamID]) > 0 {
				t.Errorf("theirs: %+v, %v", info, err)
			}
			if got := k.take("orders", 1); got != "a" {
				t.Errorf("got %q", got)
			}
		})
	}
}

const jetstreamID = "shoal-id"

// TestSameServersByAnotherName: a move to where the messages are, by another URL, is refused: its first step would empty them.
func TestSameServersByAnotherName(t *testing.T) {
	one := servers(t, 1, settings{})
	k := newBench(t, t.TempDir(), engine(one, "shop"))
	k.make("orders", fleet.DurabilityDisk)
	k.mustSay("orders", "a", "b")
	same := engine(one, "shop")
	same.URL = strings.Replace(same.URL, "127.0.0.1", "localhost", 1)
	for _, dry := range []bool{true, false} {
		_, err := k.Move(t.Context(), same, dry, func(string) {})
		refused(t, err, 412, "there already")
	}
	if got := k.take("orders", 2); got != "a b" {
		t.Errorf("got %q", got)
	}
}

// TestServerLostItsMessages: a server that comes back empty, or another in its place, is not taken for an empty broker.
func TestServerLostItsMessages(t *testing.T) {
	one := servers(t, 1, settings{})
	dir := t.TempDir()
	k := newBench(t, dir, engine(one, "shop"))
	k.make("orders", fleet.DurabilityDisk)
	k.mustSay("orders", "a")
	k.stop()
	one[0].forget("shop")
	k = newBench(t, dir, engine(one, "shop"))
	if away := k.Engine().Away; !strings.Contains(away, "has no stream SHOAL_CATALOG any more") || !strings.Contains(away, "shoal broker adopt") {
		t.Errorf("the status says %q", away)
	}
	one[0].empty("shop")
	eventually(t, "it begins anew where it is told to", func() bool { _, err := k.Adopt(t.Context()); return err == nil })
	eventually(t, "it is there", func() bool {
		_, err := k.CreateTopic(t.Context(), op, broker.TopicConfig{Name: "anew"})
		return err == nil
	})
	if err := k.say("anew", "", "b"); err != nil {
		t.Error(err)
	}
}

// TestTargetIsTooSmall: an account whose limits cannot hold what there is is refused before anything is copied there, and one that may not have the streams when
// they are made.
func TestTargetIsTooSmall(t *testing.T) {
	for says, limits := range map[string]string{
		"raise its JetStream disk limit": "{max_mem: 64MB, max_file: 1MB}",
		"may not have so many streams":   "{max_mem: 64MB, max_file: 1GB, max_streams: 2}",
		"max_bytes_required":             "{max_mem: 64MB, max_file: 1GB, max_bytes_required: true}",
	} {
		t.Run(says, func(t *testing.T) {
			small := servers(t, 1, settings{limits: limits})
			k := newBench(t, t.TempDir(), fleet.Engine{})
			k.make("orders", fleet.DurabilityDisk)
			k.mustSay("orders", "a", strings.Repeat("x", 2<<20))
			_, err := k.Move(t.Context(), engine(small, "shop"), false, func(string) {})
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v, want %q", err, says)
			}
			small[0].empty("shop")
			if at := k.Engine(); at.Engine != "embedded" || at.Notice != "" {
				t.Errorf("%+v", at)
			}
			if got := k.take("orders", 1); got != "a" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestMoveBetweenServers moves a broker that works from one server to a cluster of three, where every stream has three copies, and on
// to another server; a hub that is told afterwards of a place where it was stays where it is.
func TestMoveBetweenServers(t *testing.T) {
	one, three, last := servers(t, 1, settings{}), servers(t, 3, settings{}), servers(t, 1, settings{})
	dir := t.TempDir()
	k := newBench(t, dir, engine(one, "shop"))
	k.make("busy", fleet.DurabilityDisk)
	k.furnish()
	c := check(t, k, "busy")
	c.runs(200)
	for i, to := range [][]*natsNode{three, last} {
		if _, err := k.Move(t.Context(), engine(to, "shop"), false, func(s string) { t.Log(s) }); err != nil {
			t.Fatal(err)
		}
		c.runs(200)
		k.furnished(i)
		if i == 0 {
			leader(t, three) // which wants three copies
			one[0].empty("shop")
		}
	}
	three[0].empty("shop")
	if again := c.finish(); again != 0 {
		t.Errorf("%d came again", again)
	}
	k.stop()
	k = newBench(t, dir, engine(three, "shop"))
	if at := k.Engine(); at.Engine != engine(last, "shop").String() || !strings.Contains(at.Notice, "change `engine`") {
		t.Errorf("%+v", at)
	}
}

// TestClusterGrows: streams that were made while a cluster had two servers get three copies once the third is there.
func TestClusterGrows(t *testing.T) {
	three := prepared(t, 3, settings{})
	for i, s := range three {
		s.configure(three[:2])
		if i < 2 {
			s.start()
		}
	}
	three[0].await()
	k := newBench(t, t.TempDir(), engine(three, "shop"))
	k.make("orders", fleet.DurabilityDisk)
	if n := three[0].copies("SHOAL_EVENTS"); n != 1 {
		t.Errorf("%d copies on two servers", n)
	}
	c := check(t, k, "orders")
	c.runs(50)
	three[2].start()
	eventually(t, "there are three copies", func() bool { return three[0].copies("SHOAL_EVENTS") == 3 && k.Engine().Servers == 3 })
	c.runs(50)
	three[1].kill()
	c.runs(50)
	c.finish()
}

// copies is how many copies a stream has.
func (s *natsNode) copies(stream string) int {
	s.t.Helper()
	js, end := s.jetstream("shop")
	defer end()
	found, err := js.Stream(s.t.Context(), stream)
	if err != nil {
		return 0
	}
	return found.CachedInfo().Config.Replicas
}

// TestServerThatLacksMessages: a server that does not know messages which were committed, as the leader of before that was cut off, is asked
// again: what it lacks is not taken for what retention removed.
func TestServerThatLacksMessages(t *testing.T) {
	one, dir := servers(t, 1, settings{}), t.TempDir()
	k := newBench(t, dir, engine(one, "shop"))
	k.make("orders", fleet.DurabilityDisk)
	k.mustSay("orders", "a")
	k.stop()
	k = newBench(t, dir, engine(one, "shop"))
	k.made(func() error { _, err := k.Subscription(t.Context(), "orders-sub"); return err })

	js, end := one[0].jetstream("shop")
	defer end()
	s, err := js.Stream(t.Context(), "SHOAL_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	held, err := s.GetLastMsgForSubject(t.Context(), "shoal.events.orders")
	if err == nil {
		err = s.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan string, 1)
	go func() {
		defer close(received)
		received <- k.take("orders", 1)
	}()
	status := func() fleet.SubscriptionStatus {
		for _, s := range k.Subscriptions() {
			if s.Name == "orders-sub" {
				return s
			}
		}
		return fleet.SubscriptionStatus{}
	}
	eventually(t, "the subscription says what is wrong", func() bool { return strings.Contains(status().LastError, "lacks messages") })
	if lost := status().Lost; lost > 0 {
		t.Errorf("%d messages count as removed by retention", lost)
	}
	if _, err := js.Publish(t.Context(), held.Subject, held.Data); err != nil {
		t.Fatal(err)
	}
	if got := <-received; got != "a" {
		t.Errorf("got %q", got)
	}
}
