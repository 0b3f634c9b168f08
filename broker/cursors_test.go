package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
)

// TestCursorsThatAreSavedTogether acknowledges on several subscriptions, of which one after the other falls silent, so often that cursors go round
// in their log several times. After a restart nothing comes again, and what was deleted is not there.
func TestCursorsThatAreSavedTogether(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	const subscriptions, rounds = 8, 200
	k.topic("orders", broker.SubscriptionConfig{Name: "exact", Topic: "orders", ExactlyOnce: true})
	exact := k.receiver("exact", broker.ReceiverConfig{})
	var others []*broker.Receiver
	for i := range subscriptions {
		k.topic(fmt.Sprint("t-", i), broker.SubscriptionConfig{Name: fmt.Sprint("s-", i)})
		others = append(others, k.receiver(fmt.Sprint("s-", i), broker.ReceiverConfig{}))
	}
	for n := range rounds {
		for i, r := range others {
			if n > 2*i*i {
				continue
			}
			k.say(fmt.Sprint("t-", i), "", "x")
			k.ack(fmt.Sprint("s-", i), nil, take(t, r, 1)...)
		}
		k.say("orders", "", "x")
		k.ack("exact", nil, take(t, exact, 1)...) // answered once all of them are saved
	}
	if !onDisk(t, dir, "SHOAL_CURSORS", "shoal.cursors.=") {
		t.Error("no cursors were saved together")
	}
	if err := k.DeleteSubscription(t.Context(), op, "s-1"); err != nil {
		t.Fatal(err)
	}
	k.stop()
	k = newBench(t, dir)
	k.topicless("s-1")
	for i := range subscriptions {
		name := fmt.Sprint("s-", i)
		if lag := k.subscription(name).Lag; lag > 0 {
			t.Errorf("%d messages of %s come again", lag, name)
		}
	}
	if lag := k.subscription("exact").Lag; lag > 0 {
		t.Errorf("%d messages come again, whose acknowledgement was answered", lag)
	}
}

// topicless fails where there is a subscription of that name.
func (k *bench) topicless(subscription string) {
	k.t.Helper()
	if _, err := k.Subscription(k.t.Context(), subscription); broker.StatusOf(err) != 404 || k.subscription(subscription).Name != "" {
		k.t.Errorf("subscription %s: %v", subscription, err)
	}
}

// onDisk reports whether the files of a stream have a text in them.
func onDisk(t *testing.T, dir, stream, text string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", stream, "msgs", "*.blk"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no files of %s: %v", stream, err)
	}
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte(text)) {
			return true
		}
	}
	return false
}

// TestFilesOfVersion1 opens what a broker of data version 1 left when it was killed (testdata/version1.tar.gz): cursors each in a message of its own, and
// messages that only the write-ahead log has.
func TestFilesOfVersion1(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("there is no tar to unpack the files with")
	}
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-xzf", "testdata/version1.tar.gz", "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	long := func(c *broker.Config) { c.Retention = 100 * 365 * 24 * time.Hour }
	k := newBench(t, dir, long)
	for i := range 3 {
		name := fmt.Sprint("all-", i)
		got := take(t, k.receiver(name, broker.ReceiverConfig{}), 6)
		if data(got) != "kept ahead-0 ahead-1 ahead-2 ahead-3 ahead-4" {
			t.Errorf("%s has %q", name, data(got))
		}
		k.ack(name, nil, got...)
	}
	got := take(t, k.receiver("quick", broker.ReceiverConfig{}), 1)
	k.ack("quick", nil, got...)
	if data(got) != "os" {
		t.Errorf("the topic of class os has %q", data(got))
	}
	if n, _ := k.Scheduled(); n != 1 {
		t.Errorf("%d messages are scheduled, want one", n)
	}
	k.stop()
	k = newBench(t, dir, long)
	for _, s := range k.Subscriptions() {
		if s.Lag > 0 {
			t.Errorf("%d messages of %s come again", s.Lag, s.Name)
		}
	}
}

// BenchmarkCursors publishes, one message after the other, to a topic with many subscriptions whose filters let nothing through, and one that acknowledges: so
// every cursor is to be saved all the time.
func BenchmarkCursors(b *testing.B) {
	for _, subscriptions := range []int{1, 1000} {
		b.Run(fmt.Sprintf("subscriptions=%d", subscriptions), func(b *testing.B) {
			k := newBench(b, b.TempDir(), func(c *broker.Config) { c.Observe = nil })
			k.topic("orders", broker.SubscriptionConfig{Name: "one"})
			r := k.receiver("one", broker.ReceiverConfig{})
			for i := range subscriptions {
				c := broker.SubscriptionConfig{Name: fmt.Sprint("s-", i), Topic: "orders", Filter: `attributes.kind = "none"`}
				if _, err := k.CreateSubscription(context.Background(), op, c); err != nil {
					b.Fatal(err)
				}
			}
			data := make([]byte, 256)
			writes := writeCalls()
			for b.Loop() {
				if _, err := k.PublishMessages(context.Background(), op, "orders", []broker.Message{{Data: data}}); err != nil {
					b.Fatal(err)
				}
				k.ack("one", nil, take(b, r, 1)...)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			b.ReportMetric((writeCalls()-writes-float64(b.N))/b.Elapsed().Seconds(), "more-writes/s") // than one for each message
		})
	}
}

// writeCalls is how often this process has called the kernel to write: of the embedded server each is followed by a sync.
func writeCalls() (n float64) {
	data, _ := os.ReadFile("/proc/self/io")
	_, rest, _ := strings.Cut(string(data), "syscw:")
	_, _ = fmt.Sscan(rest, &n)
	return n
}
