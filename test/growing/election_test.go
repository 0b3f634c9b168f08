//go:build unix

package growing

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// patient waits for external servers for as long as a test lasts.
func patient(c *broker.Config) { c.Hold = patience }

// TestElectionsFailNoPublish kills the leader, restarts every server of a cluster in turn, and lets the one hang to which the hub is
// connected: no publish fails, none is lost or written twice, and deliveries and acknowledgements go on.
func TestElectionsFailNoPublish(t *testing.T) {
	three := servers(t, 3, settings{})
	k := newBench(t, t.TempDir(), engine(three, "shop"), patient)
	k.make("orders", fleet.DurabilityDisk)
	c := check(t, k, "orders")
	c.runs(100)
	led := leader(t, three)
	led.kill()
	c.runs(100)
	led.start()
	led.await()
	for _, s := range three {
		s.stop()
		s.start()
		s.await()
		c.runs(100)
	}
	led = leader(t, three)
	led.pause()
	c.runs(100)
	led.resume()
	c.runs(100)
	if _, refused := c.count(); refused > 0 {
		t.Errorf("%d publishes failed", refused)
	}
	c.finish()
	if twice := k.twice("orders"); len(twice) > 0 {
		t.Errorf("written twice: %v", twice)
	}
}

// twice are the messages that a topic's log has more than once.
func (k *bench) twice(topic string) (out []string) {
	k.t.Helper()
	if _, err := k.SeekTime(k.t.Context(), op, topic+"-sub", time.Unix(0, 0), false); err != nil {
		k.t.Fatal(err)
	}
	sub, err := k.Subscription(k.t.Context(), topic+"-sub")
	if err != nil {
		k.t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, data := range k.all(topic, sub.Name) {
		if seen[data] {
			out = append(out, data)
		}
		seen[data] = true
	}
	return out
}

// all receives and acknowledges everything, up to a message that is published for that.
func (k *bench) all(topic, subscription string) (out []string) {
	k.t.Helper()
	k.mustSay(topic, "the end")
	r, err := k.NewReceiver(k.t.Context(), op, subscription, broker.ReceiverConfig{})
	if err != nil {
		k.t.Fatal(err)
	}
	defer r.Close()
	for ended := false; !ended; {
		got, err := r.Receive(k.t.Context(), 100, 0)
		if err != nil {
			k.t.Fatal(err)
		}
		var ids []string
		for _, d := range got {
			ids = append(ids, d.AckID)
			ended = ended || string(d.Data) == "the end"
			out = append(out, string(d.Data))
		}
		if _, err := k.Ack(k.t.Context(), op, subscription, ids); err != nil {
			k.t.Fatal(err)
		}
	}
	return out
}

// TestHeldPublishesAreBounded: while no server answers, a publish waits as long as its publisher does, no more wait than may, and after Hold they are refused at once;
// those whose publishers gave up are not committed later.
func TestHeldPublishesAreBounded(t *testing.T) {
	one := servers(t, 1, settings{})
	k := newBench(t, t.TempDir(), engine(one, "shop"), patient)
	k.make("orders", fleet.DurabilityDisk)
	k.mustSay("orders", "a")
	one[0].kill()

	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := k.PublishMessages(short, op, "orders", []broker.Message{{Data: []byte("sent, perhaps")}})
	refused(t, err, unavailable, "longer than the publisher waited")
	_, err = k.PublishMessages(short, op, "orders", []broker.Message{{Data: []byte("given up")}})
	refused(t, err, unavailable, "longer than the publisher waited")

	waiting, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	crowded := make(chan error, 1)
	var all sync.WaitGroup
	big := make([]byte, 5<<20)
	for range 40 { // 200 MB, of which 64 may wait
		all.Go(func() {
			_, err := k.PublishMessages(waiting, op, "orders", []broker.Message{{Data: big}})
			if err != nil && strings.Contains(err.Error(), "as many publishes wait") {
				select {
				case crowded <- err:
				default:
				}
			}
		})
	}
	refused(t, <-crowded, unavailable, "64 MB")
	giveUp()
	all.Wait()
	one[0].start()
	k.mustSay("orders", "b") // waits, and is committed
	var small []string
	for _, data := range k.all("orders", "orders-sub") {
		if len(data) < 100 && data != "sent, perhaps" {
			small = append(small, data)
		}
	}
	if got := strings.Join(small, " "); got != "a b the end" {
		t.Errorf("got %q", got)
	}
}

// TestHoldEnds: after Hold publishes are refused, the next ones without waiting, until the server is back.
func TestHoldEnds(t *testing.T) {
	one := servers(t, 1, settings{})
	k := newBench(t, t.TempDir(), engine(one, "shop"))
	k.make("orders", fleet.DurabilityDisk)
	k.mustSay("orders", "a")
	one[0].kill()
	for range 50 { // each of them waiting for Hold would be refused by the publisher's own deadline in the end
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := k.PublishMessages(ctx, op, "orders", []broker.Message{{Data: []byte("b")}})
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		refused(t, err, unavailable, "does not answer")
	}
	one[0].start()
	eventually(t, "publishing goes on", func() bool { return k.say("orders", "", "c") == nil })
}

// TestEachOutageIsHeldAnew: an outage that was longer than Hold does not count for the next one, even where nothing was published in between.
func TestEachOutageIsHeldAnew(t *testing.T) {
	one := servers(t, 1, settings{})
	k := newBench(t, t.TempDir(), engine(one, "shop"), func(c *broker.Config) { c.Hold = 3 * time.Second })
	k.make("orders", fleet.DurabilityDisk)
	one[0].kill()
	refused(t, k.say("orders", "", "a"), unavailable, "does not answer")
	one[0].start()
	eventually(t, "the server is reached", func() bool { return k.Engine().Away == "" })
	one[0].kill()
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := k.PublishMessages(short, op, "orders", []broker.Message{{Data: []byte("b")}})
	refused(t, err, unavailable, "longer than the publisher waited")
}
