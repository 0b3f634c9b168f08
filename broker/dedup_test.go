package broker_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/shoalrun/shoal/broker"
)

// TestDuplicateEvent publishes events again, under the ids that they had: also in one batch, also at once, also after a restart. Each
// publish succeeds, and each event is committed once.
func TestDuplicateEvent(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.Install(shop())
	publish := func(source, id string) {
		t.Helper()
		got, err := k.Publish(t.Context(), "orders", broker.Event{Topic: "orders.placed", ID: id, Source: source, Data: []byte("x")})
		if err != nil || got != id {
			t.Errorf("%q %v", got, err)
		}
	}
	published := func(want uint64) {
		t.Helper()
		if got := k.Topics()[0].Published; got != want {
			t.Errorf("%d events are committed, want %d", got, want)
		}
	}
	publish("/a", "1")
	publish("/a", "1")
	publish("/b", "1")
	publish("/a", "2")
	published(3)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { publish("/c", "1") })
	}
	wg.Wait()
	published(4)
	batch := `[` + strings.Repeat(`{"specversion":"1.0","id":"1","source":"/d","type":"t"},`, 3) + `{"specversion":"1.0","id":"2","source":"/d","type":"t"}]`
	if resp := k.send("orders", "POST", "orders.placed", strings.NewReader(batch), "Content-Type", "application/cloudevents-batch+json"); resp.StatusCode != 202 {
		t.Errorf("%v", resp.Status)
	}
	published(6)
	for range 2 { // ids that the broker makes
		k.publish("y")
	}
	published(8)
	k.stop()
	k = newBench(t, dir)
	k.Install(shop())
	for _, source := range []string{"/a", "/b", "/c", "/d"} {
		publish(source, "1")
	}
	publish("/e", "1")
	published(9)
}

// TestEventIsKnownPerTopic has the same event in two topics.
func TestEventIsKnownPerTopic(t *testing.T) {
	k := newBench(t, t.TempDir())
	for i := range 4 {
		if _, err := k.Publish(t.Context(), op, broker.Event{Topic: fmt.Sprintf("t%d", i%2), ID: "1", Source: "/s"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, topic := range k.Topics() {
		if topic.Published != 1 {
			t.Errorf("%+v", topic)
		}
	}
}

// TestSnapshotKeepsTheLog fills a topic whose subscription has acknowledged everything: what the snapshot needs stays.
func TestSnapshotKeepsTheLog(t *testing.T) {
	k := newBench(t, t.TempDir(), smallTopic)
	k.Install(shop())
	if _, err := k.CreateSubscription(t.Context(), op, broker.SubscriptionConfig{Name: "one", Topic: "orders.placed"}); err != nil {
		t.Fatal(err)
	}
	k.publish("first")
	if _, err := k.CreateSnapshot(t.Context(), op, "one", broker.SnapshotConfig{Name: "snap"}); err != nil {
		t.Fatal(err)
	}
	r := k.receiver("one", broker.ReceiverConfig{})
	k.ack("one", nil, take(t, r, 1)...)
	if err := k.fill(60); broker.StatusOf(err) != 507 || !strings.Contains(err.Error(), "snapshot snap") {
		t.Errorf("filling: %v", err)
	}
	if _, err := k.SeekSnapshot(t.Context(), op, "one", "snap", false); err != nil {
		t.Fatal(err)
	}
	if got := take(t, r, 1); data(got) != "first" {
		t.Errorf("got %q", data(got))
	}
}
