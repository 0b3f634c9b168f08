package broker_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// TestRetryAfterBurnsNoAttempts has a receiver ask to be left alone, again and again: nothing uses up its attempts, the pause is told of, and
// afterwards everything comes in order.
func TestRetryAfterBurnsNoAttempts(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Attempts, c.MaxBackoff = 2, time.Millisecond })
	var well atomic.Bool
	payments := &inbox{answer: func(n int, _ *http.Request, w http.ResponseWriter) {
		if well.Load() {
			return
		}
		w.Header().Set("Retry-After", "1")
		http.Error(w, "one moment", http.StatusTooManyRequests)
	}}
	k.handle("payments", payments)
	k.Install(ordered(func(*fleet.Subscription) {}))
	for i := range 5 {
		if _, err := k.Publish(t.Context(), "orders", broker.Event{Topic: "orders.placed", OrderingKey: "k", Data: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "more refusals than a message has attempts", func() bool { return len(payments.got()) >= 3 })
	var s fleet.SubscriptionStatus
	eventually(t, "the pause is told of", func() bool { s = k.subscription("payments/orders.placed"); return s.Paused != "" })
	if !strings.Contains(s.Paused, "left alone for 1s") || !strings.Contains(s.Paused, "one moment") || s.PausedSince.IsZero() || s.NextTry.Before(s.PausedSince) {
		t.Errorf("%+v", s)
	}
	well.Store(true)
	eventually(t, "all delivered", func() bool { return k.subscription("payments/orders.placed").Lag == 0 })
	got := payments.got()
	if order := strings.Join(got[len(got)-5:], ""); order != "01234" {
		t.Errorf("they came as %q", order)
	}
	s = k.subscription("payments/orders.placed")
	if s.DeadLetters != 0 || s.Failed != 0 || s.Paused != "" || !s.NextTry.IsZero() || payments.head(len(got)-5).Get("Delivery-Attempt") != "1" {
		t.Errorf("%+v", s)
	}
}

// TestOneMessageThatIsAlwaysRefused asks for a pause with one message only, and takes others: it is that message's fault, and it becomes a dead letter.
func TestOneMessageThatIsAlwaysRefused(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Attempts, c.MaxBackoff = 2, time.Millisecond })
	payments := new(inbox)
	payments.answer = func(n int, _ *http.Request, w http.ResponseWriter) {
		if payments.got()[n-1] == "bad" {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	k.handle("payments", payments)
	k.Install(shop("payments"))
	k.publish("bad")
	sent := 0
	eventually(t, "a dead letter", func() bool {
		if int(k.subscription("payments/orders.placed").Delivered) == sent {
			k.publish("good")
			sent++
		}
		return k.subscription("payments/orders.placed").DeadLetters == 1
	})
	letters, err := k.letters("")
	if err != nil || len(letters) != 1 || string(letters[0].Message.Data) != "bad" || letters[0].Attempts != 2 {
		t.Errorf("%+v %v", letters, err)
	}
}

// TestPauseSparesTheLastAttempt has a receiver fail everything: where it takes fewer attempts to find that out than a message has, none dies, and where one
// attempt is all there is, only those die that it took.
func TestPauseSparesTheLastAttempt(t *testing.T) {
	for attempts, dead := range map[int]uint64{1: 8, 9: 0} {
		k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Attempts, c.MaxBackoff = attempts, time.Millisecond })
		var well atomic.Bool
		payments := &inbox{answer: func(_ int, _ *http.Request, w http.ResponseWriter) {
			if !well.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}}
		k.Install(shop("payments"))
		for i := range 12 { // and nobody is there yet
			k.publish(fmt.Sprint(i))
		}
		k.handle("payments", payments)
		eventually(t, "many probes", func() bool { return len(payments.got()) > 60 })
		if s := k.subscription("payments/orders.placed"); s.DeadLetters != dead || !strings.Contains(s.Paused, "one after another") {
			t.Errorf("of %d attempts: %+v", attempts, s)
		}
		well.Store(true)
		eventually(t, "the rest is delivered", func() bool { s := k.subscription("payments/orders.placed"); return s.Lag == 0 && s.Paused == "" })
		if s := k.subscription("payments/orders.placed"); s.DeadLetters != dead || s.Delivered != 12-dead {
			t.Errorf("of %d attempts: %+v", attempts, s)
		}
		k.stop()
	}
}

// TestPoisonDoesNotProlongAPause lets a receiver get well but for some messages, while nothing new comes: the pause ends all the same.
func TestPoisonDoesNotProlongAPause(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Attempts, c.MaxBackoff = 1000, time.Millisecond })
	var well atomic.Bool
	payments := new(inbox)
	payments.answer = func(n int, _ *http.Request, w http.ResponseWriter) {
		if !well.Load() || strings.HasPrefix(payments.got()[n-1], "bad") {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}
	k.Install(shop("payments"))
	for i := range 12 { // and nobody is there yet
		k.publish([]string{"good", "bad"}[i%2] + fmt.Sprint(i))
	}
	k.handle("payments", payments)
	eventually(t, "many probes", func() bool { return len(payments.got()) > 60 })
	well.Store(true)
	eventually(t, "the good ones are delivered", func() bool { return k.subscription("payments/orders.placed").Delivered == 6 })
}

// TestFewKeysPauseToo has messages of three ordering keys only, and a receiver that fails everything: none dies, and each key goes on in order.
func TestFewKeysPauseToo(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Attempts, c.MaxBackoff = 7, time.Millisecond })
	var well atomic.Bool
	taken := newFlapping()
	failed := &inbox{answer: func(_ int, r *http.Request, w http.ResponseWriter) {
		if well.Load() {
			taken.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
	}}
	k.handle("payments", failed)
	k.Install(ordered(func(*fleet.Subscription) {}))
	keys := []string{"a", "b", "c"}
	for i := range 30 {
		key := keys[i%3]
		e := broker.Event{Topic: "orders.placed", OrderingKey: key, Data: []byte("x"), Attributes: map[string]string{"customer": key, "number": fmt.Sprint(i / 3)}}
		if _, err := k.Publish(t.Context(), "orders", e); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "many probes", func() bool { return len(failed.got()) > 60 })
	if s := k.subscription("payments/orders.placed"); s.DeadLetters != 0 || !strings.Contains(s.Paused, "one after another") {
		t.Errorf("%+v", s)
	}
	well.Store(true)
	eventually(t, "all delivered", func() bool { s := k.subscription("payments/orders.placed"); return s.Lag == 0 && s.Paused == "" })
	for _, what := range taken.inOrder(keys, 10) {
		t.Error(what)
	}
	if s := k.subscription("payments/orders.placed"); s.DeadLetters != 0 {
		t.Errorf("%+v", s)
	}
}

// TestAnotherEndpointEndsAPause corrects where a subscription pushes to, whose receiver could not be reached: nothing waits for the pause's end any more.
func TestAnotherEndpointEndsAPause(t *testing.T) {
	k := newBench(t, t.TempDir())
	hook := new(inbox)
	k.handle("hook", hook)
	k.topic("mine", broker.SubscriptionConfig{Name: "made", MinBackoff: 10 * time.Minute, MaxBackoff: 10 * time.Minute, Push: &broker.PushConfig{Endpoint: "http://hok/"}})
	if _, err := k.Publish(t.Context(), op, broker.Event{Topic: "mine", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a pause", func() bool { return k.subscription("made").Paused != "" })
	_, err := k.UpdateSubscription(t.Context(), op, "made", func(c *broker.SubscriptionConfig) error { c.Push.Endpoint = "http://hook/"; return nil })
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the message", func() bool { return len(hook.got()) == 1 })
}
