package broker_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// TestDeadLetterTopic has a policy forward what failed five times, with the attributes that Pub/Sub documents.
func TestDeadLetterTopic(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.Install(shop())
	k.topic("graves", broker.SubscriptionConfig{Name: "undertaker"})
	k.topic("orders", broker.SubscriptionConfig{Name: "one", DeadLetter: &broker.DeadLetterPolicy{Topic: "graves", Attempts: 5}})
	if _, err := k.PublishMessages(t.Context(), op, "orders", []broker.Message{{Data: []byte("bad"), OrderingKey: "o", Attributes: map[string]string{"tenant": "blue"}}}); err != nil {
		t.Fatal(err)
	}
	r := k.receiver("one", broker.ReceiverConfig{})
	for i := range 5 {
		got := take(t, r, 1)
		if got[0].Attempt != i+1 {
			t.Errorf("attempt %d is told as %d", i+1, got[0].Attempt)
		}
		k.nack("one", got...)
	}
	dead := take(t, k.receiver("undertaker", broker.ReceiverConfig{}), 1)[0]
	a := dead.Attributes
	if string(dead.Data) != "bad" || dead.OrderingKey != "o" || a["tenant"] != "blue" || a["CloudPubSubDeadLetterSourceDeliveryCount"] != "5" ||
		a["CloudPubSubDeadLetterSourceSubscription"] != "one" || a["CloudPubSubDeadLetterSourceSubscriptionProject"] != "shop" || a["CloudPubSubDeadLetterSourceTopicPublishTime"] == "" {
		t.Errorf("%+v", dead)
	}
	eventually(t, "it is settled", func() bool { return k.subscription("one").Lag == 0 })
	if letters, err := k.letters(""); err != nil || len(letters) != 0 {
		t.Errorf("%v %v", letters, err)
	}
}

// TestDeadLetterKeepsAllAttempts restarts the hub between two attempts: the dead letter has both, and all that was published.
func TestDeadLetterKeepsAllAttempts(t *testing.T) {
	dir := t.TempDir()
	two := func(c *broker.Config) { c.Attempts = 2 }
	k := newBench(t, dir, two, func(c *broker.Config) { c.MinBackoff, c.MaxBackoff = time.Hour, time.Hour })
	k.handle("payments", &inbox{answer: status(http.StatusTeapot)})
	k.Install(shop("payments"))
	e := broker.Event{Topic: "orders.placed", ID: "e", OrderingKey: "key", Data: []byte("bad"), RequestID: "request", Attributes: map[string]string{"tenant": "blue"}}
	if _, err := k.Publish(t.Context(), "orders", e); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one failure", func() bool { return k.subscription("payments/orders.placed").Failed == 1 })
	k.stop()
	k = newBench(t, dir, two)
	k.handle("payments", &inbox{answer: status(http.StatusConflict)})
	k.Install(shop("payments"))
	eventually(t, "a dead letter", func() bool { return k.subscription("payments/orders.placed").DeadLetters == 1 })
	k.stop()
	k = newBench(t, dir, two)
	k.Install(shop("payments"))
	letters, err := k.letters("payments/orders.placed")
	if err != nil || len(letters) != 1 {
		t.Fatalf("%v %v", letters, err)
	}
	l := letters[0]
	if len(l.Failures) != 2 || !strings.Contains(l.Failures[0].Error, "418") || !strings.Contains(l.Failures[1].Error, "409") || l.Failures[0].Time.IsZero() || l.Attempts != 2 {
		t.Errorf("failures %+v", l.Failures)
	}
	if l.ID != "payments/orders.placed:0" || l.TraceID == "" || l.Event.RequestID != "request" || l.Event.ID != "e" || l.Event.OrderingKey != "key" || l.Message.Attributes["ce-tenant"] != "blue" || l.Plain {
		t.Errorf("%+v", l)
	}
}

// TestRedrive edits one of three dead letters, drops another, and redrives the rest to the subscription that gave them up: nobody
// else gets them again, and they keep their ids and their order.
func TestRedrive(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Attempts = 1 })
	var well atomic.Bool
	payments, mailer := &inbox{answer: func(_ int, r *http.Request, w http.ResponseWriter) {
		if !well.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}}, new(inbox)
	k.handle("payments", payments)
	k.handle("mailer", mailer)
	k.Install(shop("payments", "mailer"))
	for _, d := range []string{"a", "b", "c", "d"} {
		k.publish(d)
	}
	eventually(t, "four dead letters", func() bool { return k.subscription("payments/orders.placed").DeadLetters == 4 })
	page, next, err := k.DeadLetters(t.Context(), broker.DeadLetterQuery{Subscription: "payments.orders.placed", Max: 3})
	if err != nil || len(page) != 3 || next == "" {
		t.Fatalf("%v %q %v", page, next, err)
	}
	if rest, end, err := k.DeadLetters(t.Context(), broker.DeadLetterQuery{After: next}); err != nil || len(rest) != 1 || end != "" {
		t.Fatalf("%v %q %v", rest, end, err)
	}
	edited, err := k.EditDeadLetter(t.Context(), "payments/orders.placed:0", func(m *broker.Message) error {
		m.Data, m.Attributes["ce-fixed"] = []byte("A"), "yes"
		return nil
	})
	if err != nil || string(edited.Event.Data) != "A" || edited.Event.Attributes["fixed"] != "yes" {
		t.Fatalf("%+v %v", edited, err)
	}
	if err := k.DropDeadLetter(t.Context(), "payments/orders.placed:1"); err != nil {
		t.Fatal(err)
	}
	if err := k.DropDeadLetter(t.Context(), "payments/orders.placed:1"); broker.StatusOf(err) != http.StatusNotFound {
		t.Errorf("dropped twice: %v", err)
	}
	well.Store(true)
	before := len(payments.got())
	k.Install(concurrency(shop("payments", "mailer"), 1))
	if n, err := k.RedriveDeadLetters(t.Context(), broker.Redrive{Subscription: "payments/orders.placed", Rate: 500}); n != 3 || err != nil {
		t.Fatalf("%d redriven: %v", n, err)
	}
	eventually(t, "all settled", func() bool {
		return k.subscription("payments/orders.placed").Lag == 0 && k.subscription("mailer/orders.placed").Lag == 0
	})
	if got := strings.Join(payments.got()[before:], " "); got != "A c d" || payments.head(before).Get("Ce-Fixed") != "yes" {
		t.Errorf("redriven as %q", got)
	}
	first := map[string]string{}
	for i, body := range payments.got() {
		key := payments.head(i).Get("Idempotency-Key")
		if had, ok := first[strings.ToLower(body)]; ok && had != key {
			t.Errorf("the idempotency key of %s changed", body)
		}
		first[strings.ToLower(body)] = key
	}
	if got := mailer.got(); len(got) != 4 {
		t.Errorf("the other subscription got %q", got)
	}
	if s := k.subscription("payments/orders.placed"); s.DeadLetters != 0 {
		t.Errorf("%+v", s)
	}
}

// concurrency bounds the pushes of every subscription.
func concurrency(s *fleet.Snapshot, n int) *fleet.Snapshot {
	for _, service := range s.Services {
		for i := range service.Manifest.Subscribes {
			service.Manifest.Subscribes[i].Concurrency = n
		}
	}
	return s
}

// TestFailingReceiverPauses fails everything: pushes pause and say so, and no message uses up its attempts. One that is well
// again gets everything.
func TestFailingReceiverPauses(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Attempts, c.MaxBackoff = 5, 10*time.Millisecond })
	var well atomic.Bool
	payments := &inbox{answer: func(_ int, r *http.Request, w http.ResponseWriter) {
		if !well.Load() {
			http.Error(w, "the database is away", http.StatusInternalServerError)
		}
	}}
	k.Install(shop("payments"))
	for range 100 { // and nobody is there yet
		k.publish("x")
	}
	k.handle("payments", payments)
	eventually(t, "many probes", func() bool { return len(payments.got()) > 250 })
	s := k.subscription("payments/orders.placed")
	if s.DeadLetters != 0 || s.Lag != 100 || !strings.Contains(s.Paused, "failed one after another") || !strings.Contains(s.Paused, "the database is away") {
		t.Errorf("%+v", s)
	}
	well.Store(true)
	eventually(t, "all delivered", func() bool { s := k.subscription("payments/orders.placed"); return s.Lag == 0 && s.Paused == "" })
	if s := k.subscription("payments/orders.placed"); s.DeadLetters != 0 || s.Delivered != 100 {
		t.Errorf("%+v", s)
	}
}
