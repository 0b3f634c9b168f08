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

// TestNackVoidsTheRun fails the first of three messages of a key that are in flight: all three come again, in order, although the
// second was acknowledged meanwhile. Another key is not touched.
func TestNackVoidsTheRun(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders", broker.SubscriptionConfig{Name: "one", Ordering: true})
	k.say("orders", "x", "x1", "x2", "x3")
	k.say("orders", "y", "y1")
	r := k.receiver("one", broker.ReceiverConfig{})
	got := take(t, r, 4)
	if data(got) != "x1 x2 x3 y1" {
		t.Fatalf("got %q", data(got))
	}
	k.ack("one", nil, got[1], got[3])
	if s := k.subscription("one"); s.Lag != 3 {
		t.Errorf("x2 must not be settled before x1: %+v", s)
	}
	k.nack("one", got[0])
	k.ack("one", nil, got[2]) // void
	again := take(t, r, 1)
	if data(again) != "x1" || again[0].Attempt != 2 {
		t.Fatalf("got %q", data(again))
	}
	k.ack("one", nil, again...)
	rest := take(t, r, 2)
	if data(rest) != "x2 x3" || rest[0].Attempt != 1 || rest[1].Attempt != 1 {
		t.Errorf("got %+v", rest)
	}
	k.ack("one", nil, rest[0])
	k.ack("one", nil, rest[1])
	if s := k.subscription("one"); s.Lag != 0 {
		t.Errorf("%+v", s)
	}
}

// TestKeyHasOneHolder gives what follows a message in flight to nobody but who has that one.
func TestKeyHasOneHolder(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders", broker.SubscriptionConfig{Name: "one", Ordering: true})
	x, y := k.receiver("one", broker.ReceiverConfig{}), k.receiver("one", broker.ReceiverConfig{})
	k.say("orders", "a", "a1")
	first := take(t, x, 1)
	k.say("orders", "a", "a2")
	k.say("orders", "b", "b1")
	if got := take(t, y, 1); data(got) != "b1" {
		t.Errorf("the other receiver got %q", data(got))
	}
	k.ack("one", nil, first...)
	if got := take(t, y, 1); data(got) != "a2" {
		t.Errorf("the other receiver got %q", data(got))
	}
}

func TestOrderSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("orders", broker.SubscriptionConfig{Name: "one", Ordering: true})
	for i := range 30 {
		k.say("orders", fmt.Sprint(i%3), fmt.Sprint(i))
	}
	r := k.receiver("one", broker.ReceiverConfig{})
	got := take(t, r, 30)
	k.ack("one", nil, got[0], got[1], got[4])
	k.nack("one", got[2])
	k.stop()
	k = newBench(t, dir)
	r = k.receiver("one", broker.ReceiverConfig{})
	last := make(map[string]int)
	for seen := 0; seen < 27; {
		for _, d := range take(t, r, 1) {
			var n int
			if _, err := fmt.Sscan(string(d.Data), &n); err != nil {
				t.Fatal(err)
			}
			if before, ok := last[d.OrderingKey]; ok && n != before+3 {
				t.Fatalf("%d came after %d", n, before)
			}
			last[d.OrderingKey] = n
			k.ack("one", nil, d)
			seen++
		}
	}
	if s := k.subscription("one"); s.Lag != 0 {
		t.Errorf("%+v", s)
	}
}

// ordered is the shop with a payments that wants order, and takes its key from the events' JSON.
func ordered(edit func(*fleet.Subscription)) *fleet.Snapshot {
	s := shop("payments")
	s.Services[0].Manifest.Topics = []fleet.Topic{{Name: "orders.placed", Ordering: "json:$.customer"}}
	s.Services[1].Manifest.Subscribes[0].Ordering = true
	edit(&s.Services[1].Manifest.Subscribes[0])
	return s
}

// TestPoisonKeyIsAlarmed pushes a key that fails for ever: other keys go on, the status names it, and once it succeeds all of it
// comes in order.
func TestPoisonKeyIsAlarmed(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.MaxBackoff = 5 * time.Millisecond })
	var mu sync.Mutex
	bad, got := true, make(map[string][]string)
	k.handle("payments", &inbox{answer: func(_ int, r *http.Request, w http.ResponseWriter) {
		key := r.Header.Get("Ce-Customer")
		mu.Lock()
		defer mu.Unlock()
		if key == "poison" && bad {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		got[key] = append(got[key], r.Header.Get("Ce-Id"))
	}})
	k.Install(ordered(func(s *fleet.Subscription) { s.Attempts = 100 }))
	for i := range 40 {
		key := []string{"poison", "good", "better"}[i%3]
		e := broker.Event{Topic: "orders.placed", ID: fmt.Sprint(i), Data: fmt.Appendf(nil, `{"customer": %q}`, key), Attributes: map[string]string{"customer": key}}
		if _, err := k.Publish(t.Context(), "orders", e); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the other keys are delivered, and the status names the one that is stuck", func() bool {
		s := k.subscription("payments/orders.placed")
		return s.Lag == 14 && strings.Contains(s.Stuck, `"poison"`)
	})
	mu.Lock()
	bad = false
	mu.Unlock()
	eventually(t, "all delivered", func() bool { s := k.subscription("payments/orders.placed"); return s.Lag == 0 && s.Stuck == "" })
	for i, key := range []string{"poison", "good", "better"} {
		for j, id := range got[key] {
			if id != fmt.Sprint(i+3*j) {
				t.Fatalf("key %s came as %q", key, got[key])
			}
		}
	}
}
