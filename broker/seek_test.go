package broker_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
)

func TestFilterIsForOneSubscription(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("orders", broker.SubscriptionConfig{Name: "blue", Filter: `attributes.tenant = "blue"`}, broker.SubscriptionConfig{Name: "all"})
	var messages []broker.Message
	for i := range 100 {
		messages = append(messages, broker.Message{Data: []byte{byte(i)}, Attributes: map[string]string{"tenant": []string{"blue", "red", "green"}[i%3]}})
	}
	if _, err := k.PublishMessages(t.Context(), op, "orders", messages); err != nil {
		t.Fatal(err)
	}
	got := take(t, k.receiver("blue", broker.ReceiverConfig{}), 34)
	for i, d := range got {
		if int(d.Data[0]) != 3*i {
			t.Fatalf("delivery %d is message %d", i, d.Data[0])
		}
	}
	k.ack("blue", nil, got...)
	if s := k.subscription("blue"); s.Lag != 0 {
		t.Errorf("what does not match is not settled: %+v", s)
	}
	take(t, k.receiver("all", broker.ReceiverConfig{}), 100)
	k.stop()
	k = newBench(t, dir)
	if s := k.subscription("blue"); s.Lag != 0 {
		t.Errorf("after a restart: %+v", s)
	}
}

// TestExactlyOnce refuses what is stale, in any form.
func TestExactlyOnce(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("orders", broker.SubscriptionConfig{Name: "one", ExactlyOnce: true})
	k.say("orders", "", "a", "b", "c")
	r := k.receiver("one", broker.ReceiverConfig{})
	got := take(t, r, 3)
	k.nack("one", got[0])
	k.ack("one", broker.ErrAckID, got[0])
	if results, err := k.ModifyDeadline(t.Context(), op, "one", ackIDs(got[0]), time.Minute); err != nil || !errors.Is(results[0], broker.ErrAckID) {
		t.Errorf("%v %v", results, err)
	}
	again := take(t, r, 1)
	k.ack("one", broker.ErrAckID, got[0])
	k.ack("one", nil, again[0], got[1])
	k.ack("one", broker.ErrAckID, got[1])
	k.stop()

	k = newBench(t, dir)
	if s := k.subscription("one"); s.Lag != 1 {
		t.Errorf("%+v", s)
	}
	k.ack("one", broker.ErrAckID, got[2])
	last := take(t, k.receiver("one", broker.ReceiverConfig{}), 1)
	if data(last) != "c" {
		t.Errorf("got %q", data(last))
	}
	k.ack("one", nil, last...)
}

func TestSeekToTime(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("orders", broker.SubscriptionConfig{Name: "one"})
	k.say("orders", "", "a")
	k.say("orders", "", "b")
	r := k.receiver("one", broker.ReceiverConfig{})
	got := take(t, r, 2)
	k.ack("one", nil, got[0])
	dry, err := k.SeekTime(t.Context(), op, "one", got[0].PublishTime, true)
	if err != nil || dry.Before != 1 || dry.After != 2 {
		t.Errorf("%+v %v", dry, err)
	}
	if _, err := k.SeekTime(t.Context(), op, "one", got[0].PublishTime, false); err != nil {
		t.Fatal(err)
	}
	k.ack("one", nil, got[1]) // of before the seek: no effect
	again := take(t, r, 2)
	if data(again) != "a b" || again[0].Attempt != 1 {
		t.Errorf("got %+v", again)
	}
	if _, err := k.SeekTime(t.Context(), op, "one", time.Now().Add(time.Hour), false); err != nil {
		t.Fatal(err)
	}
	if s := k.subscription("one"); s.Lag != 0 || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
	k.say("orders", "", "c")
	if got := take(t, r, 1); data(got) != "c" {
		t.Errorf("got %q", data(got))
	}
	k.stop()
	k = newBench(t, dir)
	if s := k.subscription("one"); s.Lag != 1 {
		t.Errorf("%+v", s)
	}
}

func TestSnapshot(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("orders", broker.SubscriptionConfig{Name: "one"}, broker.SubscriptionConfig{Name: "two"})
	k.topic("other", broker.SubscriptionConfig{Name: "elsewhere"})
	k.say("orders", "", "a", "b", "c")
	r := k.receiver("one", broker.ReceiverConfig{})
	got := take(t, r, 3)
	k.ack("one", nil, got[1])
	c, err := k.CreateSnapshot(t.Context(), op, "one", broker.SnapshotConfig{Name: "snap", Labels: map[string]string{"a": "b"}})
	if left := time.Until(c.Expires); err != nil || c.Topic != "orders" || left < 6*24*time.Hour || left > 7*24*time.Hour {
		t.Fatalf("%+v %v", c, err)
	}
	if _, err := k.CreateSnapshot(t.Context(), op, "one", broker.SnapshotConfig{Name: "snap"}); broker.StatusOf(err) != http.StatusConflict {
		t.Errorf("twice: %v", err)
	}
	k.ack("one", nil, got[0], got[2])
	k.stop()

	k = newBench(t, dir)
	if _, err := k.SeekSnapshot(t.Context(), op, "elsewhere", "snap", false); broker.StatusOf(err) != http.StatusPreconditionFailed {
		t.Errorf("of another topic: %v", err)
	}
	for _, name := range []string{"one", "two"} {
		if _, err := k.SeekSnapshot(t.Context(), op, name, "snap", false); err != nil {
			t.Fatal(err)
		}
		if got := take(t, k.receiver(name, broker.ReceiverConfig{}), 2); data(got) != "a c" {
			t.Errorf("%s got %q", name, data(got))
		}
	}
	if _, err := k.UpdateSnapshot(t.Context(), op, "snap", func(c *broker.SnapshotConfig) error { c.Expires = time.Now().Add(time.Hour); return nil }); err != nil {
		t.Error(err)
	}
	if err := k.DeleteSnapshot(t.Context(), op, "snap"); err != nil {
		t.Error(err)
	}
	if all := k.ListSnapshots(t.Context()); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

func TestDetachAndDelete(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("orders", broker.SubscriptionConfig{Name: "one"}, broker.SubscriptionConfig{Name: "two"})
	k.say("orders", "", "a")
	if err := k.DetachSubscription(t.Context(), op, "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := k.NewReceiver(t.Context(), op, "one", broker.ReceiverConfig{}); broker.StatusOf(err) != http.StatusPreconditionFailed {
		t.Errorf("pulling what is detached: %v", err)
	}
	if err := k.DeleteTopic(t.Context(), op, "orders"); err != nil {
		t.Fatal(err)
	}
	k.stop()
	k = newBench(t, dir)
	if c, err := k.Broker.Subscription(t.Context(), "one"); err != nil || !c.Detached {
		t.Errorf("%+v %v", c, err)
	}
	if c, err := k.Broker.Subscription(t.Context(), "two"); err != nil || c.Topic != "" {
		t.Errorf("%+v %v", c, err)
	}
	k.topic("orders", broker.SubscriptionConfig{Name: "three", FromStart: true})
	k.say("orders", "", "new")
	if got := take(t, k.receiver("three", broker.ReceiverConfig{}), 1); data(got) != "new" {
		t.Errorf("got %q", data(got))
	}
}

// TestReceiverIsTold has one puller wait while its subscription is deleted, and another while the broker stops.
func TestReceiverIsTold(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders", broker.SubscriptionConfig{Name: "one"}, broker.SubscriptionConfig{Name: "two"})
	wait := func(name string) <-chan error {
		r, ended := k.receiver(name, broker.ReceiverConfig{}), make(chan error, 1)
		go func() {
			_, err := r.Receive(t.Context(), 1, 0)
			ended <- err
		}()
		return ended
	}
	one, two := wait("one"), wait("two")
	if err := k.DeleteSubscription(t.Context(), op, "one"); err != nil {
		t.Fatal(err)
	}
	if err := <-one; broker.StatusOf(err) != http.StatusNotFound {
		t.Errorf("of a deleted subscription: %v", err)
	}
	k.stop()
	if err := <-two; broker.StatusOf(err) != http.StatusServiceUnavailable {
		t.Errorf("of a broker that stops: %v", err)
	}
}

func TestFromStart(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders")
	k.say("orders", "", "a", "b")
	if _, err := k.CreateSubscription(t.Context(), op, broker.SubscriptionConfig{Name: "one", Topic: "orders", FromStart: true}); err != nil {
		t.Fatal(err)
	}
	if got := take(t, k.receiver("one", broker.ReceiverConfig{}), 2); data(got) != "a b" {
		t.Errorf("got %q", data(got))
	}
}
