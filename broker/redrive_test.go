package broker_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// TestDiesAgain lets a message die three times, with a restart of the hub between: the dead letter has every attempt, and so has the story.
func TestDiesAgain(t *testing.T) {
	dir, two := t.TempDir(), func(c *broker.Config) { c.Attempts = 2 }
	var letters []broker.DeadLetter
	var published time.Time
	for life := range 3 {
		k := newBench(t, dir, two)
		k.handle("payments", &inbox{answer: status(http.StatusTeapot + life)})
		k.Install(shop("payments"))
		if life == 0 {
			if _, err := k.Publish(t.Context(), "orders", broker.Event{Topic: "orders.placed", ID: "e", RequestID: "request", Data: []byte("bad")}); err != nil {
				t.Fatal(err)
			}
		} else if n, err := k.RedriveDeadLetters(t.Context(), broker.Redrive{Subscription: "payments/orders.placed"}); n != 1 || err != nil {
			t.Fatalf("%d redriven: %v", n, err)
		}
		eventually(t, "it dies", func() bool { s := k.subscription("payments/orders.placed"); return s.DeadLetters == 1 && s.Lag == 0 })
		k.stop()
		k = newBench(t, dir, two)
		k.Install(shop("payments"))
		var err error
		if letters, err = k.letters("payments/orders.placed"); err != nil || len(letters) != 1 {
			t.Fatalf("%v %v", letters, err)
		}
		if life == 0 {
			published = letters[0].Message.PublishTime
		}
		if life == 2 {
			checkLives(t, k.explain("e"))
		}
		k.stop()
	}
	l := letters[0]
	if l.Attempts != 2 || l.Earlier != 4 || l.Redriven != 2 || len(l.Failures) != 6 || l.Event.RequestID != "request" || l.TraceID == "" || !l.Message.PublishTime.Equal(published) {
		t.Fatalf("%+v", l)
	}
	for i, f := range l.Failures {
		if f.Life != uint64(i/2) || f.Attempt != uint64(i%2+1) || !strings.Contains(f.Error, fmt.Sprint(http.StatusTeapot+i/2)) || f.SpanID == (fleet.SpanID{}) || f.Time.IsZero() {
			t.Errorf("failure %d: %+v", i, f)
		}
	}
}

// checkLives looks for the attempts of each life in a story that is told after a restart.
func checkLives(t *testing.T, story fleet.MessageStory) {
	t.Helper()
	if len(story.Subscriptions) != 1 || len(story.Copies) != 2 {
		t.Fatalf("%+v", story)
	}
	lives := []fleet.MessageFate{story.Subscriptions[0], *story.Copies[0].Fate, *story.Copies[1].Fate}
	for i, f := range lives {
		if len(f.Failures) != 2 || !strings.Contains(f.Failures[0].Error, fmt.Sprint(http.StatusTeapot+i)) {
			t.Errorf("life %d: %+v", i, f)
		}
	}
	if lives[0].State != fleet.FateSettled || lives[2].State != fleet.FateDead {
		t.Errorf("%+v", lives)
	}
}

// TestPastIsBounded redrives a message with very long errors so often that not all fits: the number is right, and the latest are there.
func TestPastIsBounded(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders", broker.SubscriptionConfig{Name: "one"})
	if _, err := k.PublishMessages(t.Context(), op, "orders", []broker.Message{{Data: []byte("bad")}}); err != nil {
		t.Fatal(err)
	}
	r := k.receiver("one", broker.ReceiverConfig{})
	const lives = 12
	for i := range lives {
		got := take(t, r, 1)
		if _, err := k.Reject(t.Context(), op, "one", ackIDs(got...), fmt.Sprintf("%d %s", i, strings.Repeat("x", 5000))); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it dies", func() bool { return k.subscription("one").DeadLetters == 1 })
		if i == lives-1 {
			break
		}
		if _, err := k.RedriveDeadLetters(t.Context(), broker.Redrive{Subscription: "one"}); err != nil {
			t.Fatal(err)
		}
	}
	letters, err := k.letters("one")
	if err != nil || len(letters) != 1 {
		t.Fatalf("%v %v", letters, err)
	}
	l := letters[0]
	if n := len(l.Failures); l.Earlier+l.Attempts != lives || n < 4 || n >= lives || !strings.HasPrefix(l.Failures[n-1].Error, "11 ") || !strings.HasPrefix(l.Failures[n-2].Error, "10 ") {
		t.Errorf("%d failures of %d attempts", n, l.Earlier+l.Attempts)
	}
}

// TestEditIsChecked refuses edits that no publisher could have published, names what is wrong, and leaves the dead letter as it was.
func TestEditIsChecked(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) {
		c.Attempts, c.MaxEvent = 1, 1000
		c.Check = func(_ *broker.TopicSchema, data []byte) (map[string]string, error) {
			if !strings.HasPrefix(string(data), "{") {
				return nil, &broker.Error{Status: http.StatusBadRequest, Field: "messages.data", Text: "its field total is no number"}
			}
			return map[string]string{"googclient_schemarevisionid": "2"}, nil
		}
	})
	k.handle("payments", &inbox{answer: status(http.StatusTeapot)})
	k.Install(shop("payments"))
	k.topic("plain", broker.SubscriptionConfig{Name: "one"})
	k.publish("{}")
	if _, err := k.PublishMessages(t.Context(), op, "plain", []broker.Message{{Data: []byte("{}")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Reject(t.Context(), op, "one", ackIDs(take(t, k.receiver("one", broker.ReceiverConfig{}), 1)...), "no"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two dead letters", func() bool {
		return k.subscription("payments/orders.placed").DeadLetters == 1 && k.subscription("one").DeadLetters == 1
	})
	schema := &broker.TopicSchema{Name: "order"}
	if _, err := k.UpdateTopic(t.Context(), op, "plain", func(c *broker.TopicConfig) error { c.Schema = schema; return nil }); err != nil {
		t.Fatal(err)
	}
	event, plain := "payments/orders.placed:0", "one:0"
	for _, c := range []struct {
		id, what, says string
		change         func(*broker.Message)
	}{
		{event, "no id", "cannot be without ce-id", func(m *broker.Message) { delete(m.Attributes, "ce-id") }},
		{event, "another version", "ce-specversion must be 1.0", func(m *broker.Message) { m.Attributes["ce-specversion"] = "0.3" }},
		{event, "no event's attribute", "such as ce-kind", func(m *broker.Message) { m.Attributes["kind"] = "gift" }},
		{event, "a bad name", "lower-case letters", func(m *broker.Message) { m.Attributes["ce-Kind"] = "gift" }},
		{event, "a bad time", "RFC 3339", func(m *broker.Message) { m.Attributes["ce-time"] = "noon" }},
		{event, "too large", "at most 1000", func(m *broker.Message) { m.Data = make([]byte, 1001) }},
		{plain, "schema", "total is no number", func(m *broker.Message) { m.Data = []byte("total") }},
		{plain, "reserved", "reserved", func(m *broker.Message) { m.Attributes = map[string]string{"googx": "y"} }},
	} {
		_, err := k.EditDeadLetter(t.Context(), c.id, func(m *broker.Message) error { c.change(m); return nil })
		var refused *broker.Error
		if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest || refused.Field == "" || !strings.Contains(refused.Text, c.says) {
			t.Errorf("%s: %v", c.what, err)
		}
		if l, err := k.DeadLetter(t.Context(), c.id); err != nil || string(l.Message.Data) != "{}" || l.Message.Attributes["kind"] != "" {
			t.Errorf("%s: it is %+v now: %v", c.what, l, err)
		}
	}
	edited, err := k.EditDeadLetter(t.Context(), plain, func(m *broker.Message) error { m.Data = []byte(`{"total": 7}`); return nil })
	if err != nil || edited.Message.Attributes["googclient_schemarevisionid"] != "2" {
		t.Errorf("%+v %v", edited, err)
	}
}

// TestRedriveBesideOthers redrives while other hands drop and edit the same dead letters, and redrive them, too: what was dropped does not come, what was
// edited comes as that, and nothing comes twice or is lost.
func TestRedriveBesideOthers(t *testing.T) {
	const n = 200
	k := newBench(t, t.TempDir())
	k.topic("orders", broker.SubscriptionConfig{Name: "one"})
	bury(t, k.Broker, n)
	eventually(t, "all are dead", func() bool { return k.subscription("one").DeadLetters == n })
	var group sync.WaitGroup
	var dropped, edited sync.Map
	var redriven atomic.Int64
	for range 2 {
		group.Go(func() {
			m, err := k.RedriveDeadLetters(t.Context(), broker.Redrive{Subscription: "one"})
			if err != nil {
				t.Error(err)
			}
			redriven.Add(int64(m))
		})
	}
	group.Go(func() {
		for i := n - 1; i >= 0; i -= 3 {
			if k.DropDeadLetter(t.Context(), fmt.Sprint("one:", i)) == nil {
				dropped.Store(fmt.Sprint(i), true)
			}
		}
	})
	group.Go(func() {
		for i := n - 2; i >= 0; i -= 3 {
			_, err := k.EditDeadLetter(t.Context(), fmt.Sprint("one:", i), func(m *broker.Message) error { m.Attributes = map[string]string{"edited": "yes"}; return nil })
			if err == nil {
				edited.Store(fmt.Sprint(i), true)
			}
		}
	})
	group.Wait()
	r := k.receiver("one", broker.ReceiverConfig{})
	count := map[string]int{}
	for _, d := range take(t, r, int(redriven.Load())) {
		count[string(d.Data)]++
		if _, ok := edited.Load(string(d.Data)); ok != (d.Attributes["edited"] != "") {
			t.Errorf("%s was edited: %v, and came with %v", d.Data, ok, d.Attributes)
		}
	}
	for i := range n {
		_, gone := dropped.Load(fmt.Sprint(i))
		if times := count[fmt.Sprint(i)]; gone && times != 0 || !gone && times != 1 {
			t.Errorf("message %d, dropped: %v, came %d times", i, gone, times)
		}
	}
	if s := k.subscription("one"); s.DeadLetters != 0 || s.Lag != uint64(len(count)) {
		t.Errorf("%d came, and %+v", len(count), s)
	}
}

// bury publishes n messages of one key and makes them dead letters.
func bury(t testing.TB, b *broker.Broker, n int) {
	t.Helper()
	for i := range n {
		if _, err := b.PublishMessages(t.Context(), op, "orders", []broker.Message{{Data: fmt.Append(nil, i), OrderingKey: "k"}}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := b.NewReceiver(t.Context(), op, "one", broker.ReceiverConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range n {
		if _, err := b.Reject(t.Context(), op, "one", ackIDs(take(t, r, 1)...), "no"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOddRates redrives at rates that are no numbers, or below 0, which are refused, and at one so low that nobody lives to see the second message: it is not
// redriven until then.
func TestOddRates(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Attempts = 1 })
	k.handle("payments", &inbox{answer: status(http.StatusTeapot)})
	k.Install(shop("payments"))
	k.publish("one")
	k.publish("two")
	eventually(t, "both die", func() bool { return k.subscription("payments/orders.placed").DeadLetters == 2 })
	for _, rate := range []float64{-1, math.NaN(), math.Inf(-1)} {
		var refused *broker.Error
		if n, err := k.RedriveDeadLetters(t.Context(), broker.Redrive{Subscription: "payments/orders.placed", Rate: rate}); n != 0 || !errors.As(err, &refused) || refused.Field != "rate" {
			t.Errorf("at %g a second: %d redriven, %v", rate, n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	k.handle("payments", &inbox{answer: func(int, *http.Request, http.ResponseWriter) { cancel() }})
	n, err := k.RedriveDeadLetters(ctx, broker.Redrive{Subscription: "payments/orders.placed", Rate: 1e-300})
	if n != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d redriven, %v", n, err)
	}
}
