package broker_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// fill publishes events of 100 kB until n are accepted or one is refused.
func (k *bench) fill(n int) error {
	for range n {
		if _, err := k.Publish(k.t.Context(), "orders", broker.Event{Topic: "orders.placed", Data: make([]byte, 100<<10)}); err != nil {
			return err
		}
	}
	return nil
}

func smallTopic(c *broker.Config) { c.MaxTopic = 1 << 20 }

func TestTopicWithoutSubscribersIsBounded(t *testing.T) {
	k := newBench(t, t.TempDir(), smallTopic)
	k.Install(shop())
	if err := k.fill(60); err != nil {
		t.Fatal(err)
	}
	topic := k.Topics()[0]
	if topic.Published != 60 || topic.Bytes > 1<<20 || topic.Retained > 10 || topic.Retained < 5 {
		t.Errorf("%+v", topic)
	}
}

func TestWholeStoreIsBounded(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.MaxStore = 2 << 20 })
	k.Install(shop())
	for i := range 60 {
		e := broker.Event{Topic: "t" + string(rune('a'+i%7)), Data: make([]byte, 100<<10)}
		if _, err := k.Publish(t.Context(), fleet.Operator, e); err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
	}
}

// TestLaggingSubscriptionStopsTheTopic fills a topic whose subscriber is away: nothing it needs is
// dropped, publishers are told, and all goes on once it is back.
func TestLaggingSubscriptionStopsTheTopic(t *testing.T) {
	k := newBench(t, t.TempDir(), smallTopic)
	k.Install(shop("payments"))
	err := k.fill(60)
	var refused *broker.Error
	if !errors.As(err, &refused) || refused.Status != http.StatusInsufficientStorage || !strings.Contains(refused.Text, "payments/orders.placed") {
		t.Fatalf("filling: %v", err)
	}
	accepted := k.Topics()[0].Published
	if k.Topics()[0].Stopped == "" || k.subscription("payments/orders.placed").Lag != accepted {
		t.Errorf("%+v", k.Topics())
	}
	payments := new(inbox)
	k.handle("payments", payments)
	eventually(t, "all accepted delivered", func() bool { return uint64(len(payments.got())) == accepted })
	eventually(t, "all accepted settled", func() bool { return k.subscription("payments/orders.placed").Lag == 0 })
	if err := k.fill(1); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if k.Topics()[0].Stopped != "" {
		t.Errorf("%+v", k.Topics())
	}
}

// TestRetention lets all of a topic grow too old. What nobody took is lost, and counted; offsets go on, and the state of the subscription can be kept all the same.
func TestRetention(t *testing.T) {
	dir := t.TempDir()
	short := func(c *broker.Config) { c.Retention = 300 * time.Millisecond }
	k := newBench(t, dir, short)
	k.Install(shop("payments"))
	for range 5 {
		k.publish("old")
	}
	eventually(t, "the events are removed", func() bool { return k.Topics()[0].Retained == 0 })
	if _, err := k.CreateSnapshot(t.Context(), op, "payments.orders.placed", broker.SnapshotConfig{Name: "nothing"}); err != nil {
		t.Errorf("a snapshot of a subscription whose messages are all gone: %v", err)
	}
	k.stop()

	k = newBench(t, dir)
	k.Install(shop("payments"))
	if topic := k.Topics()[0]; topic.Published != 5 || topic.Retained != 0 {
		t.Errorf("after a restart: %+v", topic)
	}
	payments := new(inbox)
	k.handle("payments", payments)
	k.publish("new")
	eventually(t, "the new event", func() bool { return k.subscription("payments/orders.placed").Lag == 0 })
	if got := payments.got(); len(got) != 1 || got[0] != "new" {
		t.Errorf("got %q", got)
	}
	if k.Topics()[0].Published != 6 {
		t.Errorf("%+v", k.Topics())
	}
}

// TestDetachedSubscription loses its manifest line and gets it back: it goes on where it was. After the
// retention time it is forgotten.
func TestDetachedSubscription(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.Install(shop("payments"))
	k.publish("one")
	k.Install(shop())
	if s := k.subscription("payments/orders.placed"); !strings.Contains(s.Paused, "no manifest") {
		t.Errorf("%+v", s)
	}
	payments := new(inbox)
	k.handle("payments", payments)
	k.stop()
	k = newBench(t, dir)
	k.handle("payments", payments)
	k.Install(shop())
	k.publish("two")
	k.Install(shop("payments"))
	eventually(t, "both", func() bool { return len(payments.got()) == 2 })
	k.Install(shop())
	k.stop()

	k = newBench(t, dir, func(c *broker.Config) { c.Retention = 10 * time.Millisecond })
	k.Install(shop())
	eventually(t, "it is forgotten", func() bool { return len(k.Subscriptions()) == 0 })
}

// TestRetainAcked fills a topic whose subscription acknowledges everything and wants to keep it: nothing of it makes room.
func TestRetainAcked(t *testing.T) {
	k := newBench(t, t.TempDir(), smallTopic)
	k.Install(shop())
	if _, err := k.CreateSubscription(t.Context(), op, broker.SubscriptionConfig{Name: "one", Topic: "orders.placed", RetainAcked: true}); err != nil {
		t.Fatal(err)
	}
	k.publish("first")
	r := k.receiver("one", broker.ReceiverConfig{})
	got := take(t, r, 1)
	k.ack("one", nil, got...)
	if err := k.fill(60); broker.StatusOf(err) != http.StatusInsufficientStorage || !strings.Contains(err.Error(), "subscription one") {
		t.Errorf("filling: %v", err)
	}
	if _, err := k.SeekTime(t.Context(), op, "one", got[0].PublishTime, false); err != nil {
		t.Fatal(err)
	}
	if got := take(t, r, 1); data(got) != "first" {
		t.Errorf("got %q", data(got))
	}
}
