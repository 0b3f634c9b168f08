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

func status(code int) func(int, *http.Request, http.ResponseWriter) {
	return func(_ int, _ *http.Request, w http.ResponseWriter) { w.WriteHeader(code) }
}

// letters returns the dead letters of a subscription, or of all.
func (k *bench) letters(subscription string) ([]broker.DeadLetter, error) {
	page, _, err := k.DeadLetters(k.t.Context(), broker.DeadLetterQuery{Subscription: subscription})
	return page, err
}

func TestRetryUntilAccepted(t *testing.T) {
	k := newBench(t, t.TempDir())
	payments := &inbox{answer: func(n int, _ *http.Request, w http.ResponseWriter) {
		if n < 4 {
			http.Error(w, "the database is away", http.StatusInternalServerError)
		}
	}}
	k.handle("payments", payments)
	k.Install(shop("payments"))
	k.publish("one")
	eventually(t, "settled", func() bool { s := k.subscription("payments/orders.placed"); return s.Lag == 0 && s.Delivered == 1 })
	keys := make(map[string]bool)
	for i := range 4 {
		if got := payments.head(i).Get("Delivery-Attempt"); got != fmt.Sprint(i+1) {
			t.Errorf("attempt %d says %s", i+1, got)
		}
		keys[payments.head(i).Get("Idempotency-Key")] = true
	}
	if len(keys) != 1 {
		t.Errorf("the idempotency key changed: %v", keys)
	}
	if s := k.subscription("payments/orders.placed"); s.Failed != 3 || !strings.Contains(s.LastError, "the database is away") {
		t.Errorf("status %+v", s)
	}
}

func TestDeadLetter(t *testing.T) {
	dir := t.TempDir()
	few := func(c *broker.Config) { c.Attempts = 3 }
	k := newBench(t, dir, few)
	payments := &inbox{answer: func(_ int, r *http.Request, w http.ResponseWriter) {
		if r.Header.Get("Ce-Id") == "poison" {
			http.Error(w, "cannot parse this", http.StatusUnprocessableEntity)
		}
	}}
	k.handle("payments", payments)
	k.Install(shop("payments"))
	poison := broker.Event{Topic: "orders.placed", ID: "poison", Data: []byte("bad"), Attributes: map[string]string{"tenant": "blue"}}
	if _, err := k.Publish(t.Context(), "orders", poison); err != nil {
		t.Fatal(err)
	}
	k.publish("good")
	eventually(t, "a dead letter and a delivery", func() bool {
		s := k.subscription("payments/orders.placed")
		return s.DeadLetters == 1 && s.Delivered == 1 && s.Lag == 0
	})
	letters, err := k.letters("payments/orders.placed")
	if err != nil || len(letters) != 1 {
		t.Fatalf("%v %v", letters, err)
	}
	l := letters[0]
	if l.Event.ID != "poison" || string(l.Event.Data) != "bad" || l.Event.Attributes["tenant"] != "blue" || l.Caller != "orders" || l.Attempts != 3 || len(l.Failures) != 3 {
		t.Errorf("dead letter %+v", l)
	}
	if !strings.Contains(l.Failures[2].Error, "422 Unprocessable Entity cannot parse this") {
		t.Errorf("failure %+v", l.Failures[2])
	}
	if n := len(payments.got()); n != 4 {
		t.Errorf("%d deliveries, want 3 of poison and 1 of good", n)
	}
	k.stop()
	k = newBench(t, dir, few)
	k.Install(shop("payments"))
	if s := k.subscription("payments/orders.placed"); s.DeadLetters != 1 || s.Lag != 0 {
		t.Errorf("after a restart: %+v", s)
	}
	if letters, err := k.letters(""); err != nil || len(letters) != 1 {
		t.Errorf("after a restart: %v %v", letters, err)
	}
}

func TestRetryAfterHoldsTheSubscription(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Concurrency = 1 })
	var refused atomic.Int64
	payments := &inbox{answer: func(n int, _ *http.Request, w http.ResponseWriter) {
		switch n {
		case 1:
			refused.Store(time.Now().UnixNano())
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			if waited := time.Duration(time.Now().UnixNano() - refused.Load()); waited < time.Second {
				t.Errorf("the next delivery came after %v", waited)
			}
		}
	}}
	k.handle("payments", payments)
	k.Install(shop("payments"))
	k.publish("one")
	k.publish("two")
	eventually(t, "both delivered", func() bool { return k.subscription("payments/orders.placed").Lag == 0 })
}

// TestUnreachableBurnsNoAttempts has nobody at the receiver's name for longer than all attempts would last.
func TestUnreachableBurnsNoAttempts(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Attempts, c.MaxBackoff = 2, 10*time.Millisecond })
	k.Install(shop("payments"))
	for i := range 20 {
		k.publish(fmt.Sprint(i))
	}
	probes := func() (n int) {
		for _, o := range k.seen() {
			if o.Kind == fleet.KindDelivery && o.Reason == string(fleet.ReasonNoEndpoint) {
				n++
			}
		}
		return n
	}
	eventually(t, "several probes", func() bool { return probes() > 20 })
	s := k.subscription("payments/orders.placed")
	if s.Lag != 20 || s.DeadLetters != 0 || s.Failed != 0 || !strings.Contains(s.Paused, "503") {
		t.Errorf("while it is away: %+v", s)
	}
	payments := new(inbox)
	k.handle("payments", payments)
	eventually(t, "all delivered", func() bool { return k.subscription("payments/orders.placed").Lag == 0 })
	if payments.head(0).Get("Delivery-Attempt") != "1" || k.subscription("payments/orders.placed").Paused != "" {
		t.Errorf("the first delivery is attempt %s", payments.head(0).Get("Delivery-Attempt"))
	}
}

// TestInstallWakesAPausedSubscription changes the service while its next probe is far away.
func TestInstallWakesAPausedSubscription(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.MinBackoff, c.MaxBackoff = time.Hour, time.Hour })
	k.Install(shop("payments"))
	k.publish("one")
	eventually(t, "a pause", func() bool { return k.subscription("payments/orders.placed").Paused != "" })
	k.handle("payments", new(inbox))
	s := shop("payments")
	s.Services[1].Version = 2
	k.Install(s)
	eventually(t, "delivery", func() bool { return k.subscription("payments/orders.placed").Lag == 0 })
}

func TestServiceThatIsNotDeployedIsNotTried(t *testing.T) {
	k := newBench(t, t.TempDir())
	payments := new(inbox)
	k.handle("payments", payments)
	s := shop("payments")
	s.Services[1].Deployed = false
	k.Install(s)
	k.publish("one")
	if s := k.subscription("payments/orders.placed"); s.Lag != 1 || s.InFlight != 0 || s.Paused == "" {
		t.Errorf("%+v", s)
	}
	k.Install(shop("payments"))
	eventually(t, "delivery", func() bool { return len(payments.got()) == 1 })
}

func TestConcurrencyIsBounded(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Concurrency = 4 })
	var now, most atomic.Int64
	release := make(chan struct{})
	k.handle("payments", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-release
		now.Add(-1)
	}))
	k.Install(shop("payments"))
	for i := range 12 {
		k.publish(fmt.Sprint(i))
	}
	eventually(t, "four in flight", func() bool { return now.Load() == 4 })
	if s := k.subscription("payments/orders.placed"); s.InFlight != 4 || s.Lag != 12 {
		t.Errorf("%+v", s)
	}
	close(release)
	eventually(t, "all delivered", func() bool { return k.subscription("payments/orders.placed").Lag == 0 })
	if most.Load() != 4 {
		t.Errorf("%d at once", most.Load())
	}
}

// TestConcurrencyAdapts pushes to a receiver that sustains three at a time, and says 429 to more.
func TestConcurrencyAdapts(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Attempts = 1000 })
	var now atomic.Int64
	k.handle("payments", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer now.Add(-1)
		if now.Add(1) > 3 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		time.Sleep(2 * time.Millisecond) // its work
	}))
	k.Install(shop("payments"))
	if s := k.subscription("payments/orders.placed"); s.Concurrency != 16 {
		t.Errorf("at first %+v", s)
	}
	for i := range 300 {
		k.publish(fmt.Sprint(i))
		if i%16 == 0 {
			eventually(t, "there is no great backlog", func() bool { return k.subscription("payments/orders.placed").Lag < 200 })
		}
	}
	eventually(t, "all delivered", func() bool { return k.subscription("payments/orders.placed").Lag == 0 })
	if s := k.subscription("payments/orders.placed"); s.Failed > 0 && s.Concurrency >= 16 || s.DeadLetters > 0 {
		t.Errorf("%+v", s)
	}
}

// TestAnswerAfterTheLease answers well, and too late: the attempt has failed, and the message comes again.
func TestAnswerAfterTheLease(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.AckDeadline = 50 * time.Millisecond })
	payments := &inbox{answer: func(n int, r *http.Request, w http.ResponseWriter) {
		if n == 1 {
			<-r.Context().Done()
		}
		w.WriteHeader(http.StatusOK)
	}}
	k.handle("payments", payments)
	k.Install(shop("payments"))
	k.publish("one")
	eventually(t, "delivered", func() bool { return k.subscription("payments/orders.placed").Lag == 0 })
	if s := k.subscription("payments/orders.placed"); s.Failed != 1 || s.Delivered != 1 || payments.head(1).Get("Delivery-Attempt") != "2" {
		t.Errorf("%+v", s)
	}
}

// TestHangingReceiver never answers: the ack deadline ends the attempt, and it counts.
func TestHangingReceiver(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.AckDeadline, c.Attempts = 20*time.Millisecond, 2 })
	k.handle("payments", &inbox{answer: func(_ int, r *http.Request, _ http.ResponseWriter) { <-r.Context().Done() }})
	k.Install(shop("payments"))
	k.publish("one")
	eventually(t, "a dead letter", func() bool { return k.subscription("payments/orders.placed").DeadLetters == 1 })
	letters, err := k.letters("")
	if err != nil || !strings.Contains(letters[0].Failures[0].Error, "ack deadline") {
		t.Errorf("%+v %v", letters, err)
	}
}

// TestStopRepeatsTheAttempt cuts an attempt off by a stop: it comes again under the same number.
func TestStopRepeatsTheAttempt(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir, func(c *broker.Config) { c.Drain = 10 * time.Millisecond })
	arrived := make(chan string, 1)
	k.handle("payments", &inbox{answer: func(n int, r *http.Request, w http.ResponseWriter) {
		if n == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		arrived <- r.Header.Get("Delivery-Attempt")
		<-r.Context().Done()
	}})
	k.Install(shop("payments"))
	k.publish("one")
	if got := <-arrived; got != "2" {
		t.Errorf("attempt %s", got)
	}
	k.stop()
	k = newBench(t, dir)
	payments := new(inbox)
	k.handle("payments", payments)
	k.Install(shop("payments"))
	eventually(t, "delivery", func() bool { return len(payments.got()) == 1 })
	if got := payments.head(0).Get("Delivery-Attempt"); got != "2" {
		t.Errorf("after the stop it is attempt %s, want 2 again", got)
	}
}

func TestRedirectIsNoAnswer(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Attempts = 1 })
	k.handle("payments", &inbox{answer: status(http.StatusFound)})
	k.Install(shop("payments"))
	k.publish("one")
	eventually(t, "a dead letter", func() bool { return k.subscription("payments/orders.placed").DeadLetters == 1 })
}
