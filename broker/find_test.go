package broker_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// explain tells the only story of an id.
func (k *bench) explain(id string) fleet.MessageStory {
	k.t.Helper()
	got, err := k.Explain(k.t.Context(), id)
	if err != nil || len(got.Stories) != 1 {
		k.t.Fatalf("%s: %+v %v", id, got, err)
	}
	return got.Stories[0]
}

// A message is found by each of the ids that it has, in whichever log it lies, also after a restart.
func TestMessagesAreFoundByTheirIDs(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.handle("payments", new(inbox))
	k.Install(shop("payments"))
	for _, class := range []fleet.Durability{fleet.DurabilityDisk, fleet.DurabilityOS} {
		if _, err := k.CreateTopic(t.Context(), op, broker.TopicConfig{Name: "topic." + string(class), Durability: class}); err != nil {
			t.Fatal(err)
		}
	}
	k.say("topic.disk", "", "before", "in between")
	e := broker.Event{Topic: "orders.placed", ID: "e-7", Source: "/orders", Type: "t", Data: []byte("x"), RequestID: "request-7", Traceparent: requestTrace}
	if _, err := k.Publish(t.Context(), "orders", e); err != nil {
		t.Fatal(err)
	}
	bound := broker.Message{Data: []byte("y"), RequestID: "request-8", Attributes: map[string]string{"ce-id": "e-8", "ce-source": "urn:s", "ce-type": "t", "ce-specversion": "1.0"}}
	if _, err := k.PublishMessages(t.Context(), op, "topic.os", []broker.Message{{Data: []byte("z")}, bound}); err != nil {
		t.Fatal(err)
	}
	k.say("topic.disk", "", "after")
	for range 2 {
		for id, want := range map[string]string{
			"orders.placed:0": "orders.placed:0", "payments/orders.placed:0": "orders.placed:0", "payments.orders.placed:0": "orders.placed:0",
			"e-7": "orders.placed:0", "/orders/e-7": "orders.placed:0", "request-7": "orders.placed:0", requestTrace[3:35]: "orders.placed:0",
			"e-8": "topic.os:1", "urn:s/e-8": "topic.os:1", "request-8": "topic.os:1", "topic.disk:2": "topic.disk:2",
		} {
			if m := k.explain(id).Message; m.Topic+":"+m.ID != want {
				t.Errorf("%s is %s:%s, not %s", id, m.Topic, m.ID, want)
			}
		}
		for _, id := range []string{"e-9", "nothing:7", "scheduled-0", "e-7/", requestTrace[36:52]} {
			if got, err := k.Explain(t.Context(), id); err != nil || len(got.Stories) != 0 || !got.Since.IsZero() {
				t.Errorf("%s: %+v %v", id, got, err)
			}
		}
		if _, err := k.Explain(t.Context(), "orders.placed:7"); broker.StatusOf(err) != http.StatusNotFound {
			t.Error(err)
		}
		k.stop()
		k = newBench(t, dir)
		k.Install(shop("payments"))
	}
}

// Of a request that published many messages some are told, and how many there are more.
func TestManyMessagesOfOneRequest(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders")
	var all []broker.Message
	for range 25 {
		all = append(all, broker.Message{Data: []byte("x"), RequestID: "many"})
	}
	if _, err := k.PublishMessages(t.Context(), op, "orders", all); err != nil {
		t.Fatal(err)
	}
	got, err := k.Explain(t.Context(), "many")
	if err != nil || len(got.Stories) != 10 || got.More != 15 {
		t.Fatalf("%d stories and %d more: %v", len(got.Stories), got.More, err)
	}
	if g := got.Stories[3].Group; g.Count != 25 || g.First != "0" || g.Took <= 0 {
		t.Errorf("%+v", g)
	}
}

// The story of a message goes on where it was committed again: redriven, or in a dead-letter topic.
func TestStoryOfADeadLetter(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.Install(shop())
	k.topic("graves")
	k.topic("orders", broker.SubscriptionConfig{Name: "kept", DeadLetter: &broker.DeadLetterPolicy{Attempts: 5}},
		broker.SubscriptionConfig{Name: "forwarded", DeadLetter: &broker.DeadLetterPolicy{Topic: "graves", Attempts: 5}},
		broker.SubscriptionConfig{Name: "picky", Filter: `attributes:kind`})
	e := broker.Event{Topic: "orders", ID: "e", Source: "/s", Data: []byte("x")}
	if _, err := k.Publish(t.Context(), op, e); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kept", "forwarded"} {
		r := k.receiver(name, broker.ReceiverConfig{})
		for range 5 {
			k.nack(name, take(t, r, 1)...)
		}
	}
	eventually(t, "both gave it up", func() bool { return k.subscription("kept").DeadLetters == 1 && k.subscription("forwarded").Lag == 0 })
	story := k.explain("e")
	fates := map[string]string{}
	for _, f := range story.Subscriptions {
		fates[f.Subscription] = f.State
	}
	if fates["kept"] != fleet.FateDead || fates["forwarded"] != fleet.FateSettled || fates["picky"] != fleet.FateFiltered {
		t.Errorf("%v", fates)
	}
	if len(story.Copies) != 1 || story.Copies[0].Topic != "graves" || story.Copies[0].From != "forwarded" || story.Partial {
		t.Errorf("%+v", story.Copies)
	}
	if _, err := k.RedriveDeadLetters(t.Context(), broker.Redrive{Subscription: "kept"}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"e", "orders:0", "orders:1"} { // the redriven copy is a part of the same story
		story = k.explain(id)
		if len(story.Copies) != 2 || story.Message.ID != "0" {
			t.Fatalf("%s: %+v", id, story)
		}
		c := story.Copies[1]
		if c.ID != "1" || c.Fate == nil || c.Fate.Subscription != "kept" || c.Fate.State != fleet.FateQueued || c.From != "" {
			t.Errorf("%s: %+v", id, c)
		}
	}
}

// A message that failed says which attempt it waits for.
func TestStoryOfAFailedMessage(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders", broker.SubscriptionConfig{Name: "one", MinBackoff: 5 * time.Minute, MaxBackoff: 10 * time.Minute})
	k.say("orders", "", "x")
	k.nack("one", take(t, k.receiver("one", broker.ReceiverConfig{}), 1)...)
	f := k.explain("orders:0").Subscriptions[0]
	if f.State != fleet.FateWaiting || f.Attempt != 2 || time.Until(f.Due) < time.Minute {
		t.Errorf("%+v", f)
	}
}

// What waits in the schedule is found there, and says afterwards that it waited.
func TestStoryOfAScheduledMessage(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders", broker.SubscriptionConfig{Name: "one"})
	at := time.Now().Add(time.Hour)
	ids, err := k.PublishMessages(t.Context(), op, "orders", []broker.Message{{Data: []byte("x"), NotBefore: at, RequestID: "request"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{ids[0], "request"} {
		story := k.explain(id)
		if !story.Pending || story.Message.Topic != "orders" || story.Message.ID != ids[0] || !story.Message.NotBefore.Equal(at) || story.Scheduled.IsZero() || len(story.Subscriptions) != 0 {
			t.Errorf("%s: %+v", id, story)
		}
	}
	if err := k.CancelScheduled(t.Context(), op, "", ids[0]); err != nil {
		t.Fatal(err)
	}
	if got, err := k.Explain(t.Context(), "request"); err != nil || len(got.Stories) != 0 {
		t.Errorf("taken back, it is %+v %v", got, err)
	}
	soon := broker.Message{Data: []byte("x"), NotBefore: time.Now().Add(50 * time.Millisecond), RequestID: "soon"}
	if _, err := k.PublishMessages(t.Context(), op, "orders", []broker.Message{soon}); err != nil {
		t.Fatal(err)
	}
	take(t, k.receiver("one", broker.ReceiverConfig{}), 1)
	story := k.explain("soon")
	if story.Pending || story.Message.ID != "0" || story.Scheduled.IsZero() || !story.Scheduled.Before(story.Group.Time) || len(story.Subscriptions) != 1 {
		t.Errorf("%+v", story)
	}
	if !strings.HasPrefix(ids[0], "scheduled-") {
		t.Error(ids)
	}
}

// Messages of many topics that are committed together are found in the write-ahead log, and once they are in their own.
func TestMessagesAreFoundAheadOfTheirLogs(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	const n = 20
	var wg sync.WaitGroup
	for i := range n {
		k.topic(fmt.Sprint("topic-", i))
	}
	for i := range n {
		wg.Go(func() {
			m := broker.Message{Data: []byte("x"), RequestID: fmt.Sprint("request-", i)}
			if _, err := k.PublishMessages(t.Context(), op, fmt.Sprint("topic-", i), []broker.Message{m}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for range 2 {
		for i := range n {
			if m := k.explain(fmt.Sprint("request-", i)).Message; m.Topic != fmt.Sprint("topic-", i) || m.ID != "0" || m.Published.IsZero() {
				t.Errorf("request %d is %+v", i, m)
			}
		}
		k.stop()
		k = newBench(t, dir)
	}
}
