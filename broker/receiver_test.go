package broker_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

const op = fleet.Operator

// topic makes a topic and subscriptions to it, each as edited.
func (k *bench) topic(name string, subscriptions ...broker.SubscriptionConfig) {
	k.t.Helper()
	if _, err := k.CreateTopic(k.t.Context(), op, broker.TopicConfig{Name: name}); err != nil {
		k.t.Fatal(err)
	}
	for _, c := range subscriptions {
		c.Topic = name
		if _, err := k.CreateSubscription(k.t.Context(), op, c); err != nil {
			k.t.Fatal(err)
		}
	}
}

// post publishes messages of one key with these data.
func (k *bench) say(topic, key string, data ...string) (ids []string) {
	k.t.Helper()
	var messages []broker.Message
	for _, d := range data {
		messages = append(messages, broker.Message{Data: []byte(d), OrderingKey: key})
	}
	ids, err := k.PublishMessages(k.t.Context(), op, topic, messages)
	if err != nil {
		k.t.Fatal(err)
	}
	return ids
}

func (k *bench) receiver(subscription string, c broker.ReceiverConfig) *broker.Receiver {
	k.t.Helper()
	r, err := k.NewReceiver(k.t.Context(), op, subscription, c)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(r.Close)
	return r
}

// take receives n deliveries.
func take(t testing.TB, r *broker.Receiver, n int) (out []broker.Delivery) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(out) < n {
		got, err := r.Receive(ctx, n-len(out), 0)
		if err != nil {
			t.Fatalf("after %d of %d deliveries: %v", len(out), n, err)
		}
		out = append(out, got...)
	}
	return out
}

func data(ds []broker.Delivery) string {
	var out []string
	for _, d := range ds {
		out = append(out, string(d.Data))
	}
	return strings.Join(out, " ")
}

func ackIDs(ds ...broker.Delivery) (ids []string) {
	for _, d := range ds {
		ids = append(ids, d.AckID)
	}
	return ids
}

// ack acknowledges deliveries, and fails the test where a result is not as wanted.
func (k *bench) ack(subscription string, want error, ds ...broker.Delivery) {
	k.t.Helper()
	results, err := k.Ack(k.t.Context(), op, subscription, ackIDs(ds...))
	if err != nil {
		k.t.Fatal(err)
	}
	for i, r := range results {
		if !errors.Is(r, want) || (want == nil) != (r == nil) {
			k.t.Errorf("acknowledging %q: %v, want %v", ds[i].Data, r, want)
		}
	}
}

func (k *bench) nack(subscription string, ds ...broker.Delivery) {
	k.t.Helper()
	if _, err := k.ModifyDeadline(k.t.Context(), op, subscription, ackIDs(ds...), 0); err != nil {
		k.t.Fatal(err)
	}
}

func TestPullFansOutAndCompetes(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders", broker.SubscriptionConfig{Name: "one"}, broker.SubscriptionConfig{Name: "two"})
	sent, err := k.PublishMessages(t.Context(), op, "orders", []broker.Message{
		{Data: []byte("a"), Attributes: map[string]string{"any": "\xff\x00", "Größe": ""}}, {Data: []byte("b")}, {Data: []byte("c")}})
	if err != nil || strings.Join(sent, " ") != "0 1 2" {
		t.Fatalf("ids %v: %v", sent, err)
	}
	x, y := k.receiver("one", broker.ReceiverConfig{MaxMessages: 1}), k.receiver("one", broker.ReceiverConfig{})
	first := take(t, x, 1)
	rest := take(t, y, 2)
	if data(first) != "a" || data(rest) != "b c" || first[0].ID != "0" || first[0].Attempt != 1 || first[0].Attributes["any"] != "\xff\x00" {
		t.Errorf("%+v %+v", first, rest)
	}
	if first[0].PublishTime.IsZero() || first[0].Publisher != op || first[0].RequestID == "" {
		t.Errorf("%+v", first[0].Message)
	}
	k.ack("one", nil, append(rest, first...)...)
	all := take(t, k.receiver("two", broker.ReceiverConfig{}), 3)
	if data(all) != "a b c" {
		t.Errorf("the other subscription got %q", data(all))
	}
	if s := k.subscription("one"); s.Lag != 0 || s.Delivered != 3 {
		t.Errorf("%+v", s)
	}
}

func TestPullOfWhatIsBehind(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders", broker.SubscriptionConfig{Name: "one"})
	const n = 5000
	for i := range n / 100 {
		var batch []string
		for j := range 100 {
			batch = append(batch, fmt.Sprint(i*100+j))
		}
		k.say("orders", "", batch...)
	}
	got := take(t, k.receiver("one", broker.ReceiverConfig{}), n)
	for i, d := range got {
		if string(d.Data) != fmt.Sprint(i) {
			t.Fatalf("delivery %d is %q", i, d.Data)
		}
	}
	k.ack("one", nil, got...)
	if s := k.subscription("one"); s.Lag != 0 {
		t.Errorf("%+v", s)
	}
}

// TestNackComesAgain gives a message back, and another time the receiver's own deadline does; a late acknowledgement counts.
func TestNackComesAgain(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders", broker.SubscriptionConfig{Name: "one"})
	r := k.receiver("one", broker.ReceiverConfig{})
	k.say("orders", "", "a")
	first := take(t, r, 1)
	if results, err := k.ModifyDeadline(t.Context(), op, "one", ackIDs(first...), 600*time.Second); err != nil || results[0] != nil {
		t.Errorf("extending: %v %v", results, err)
	}
	k.nack("one", first...)
	second := take(t, r, 1)
	if second[0].Attempt != 2 || second[0].ID != first[0].ID || second[0].AckID == first[0].AckID {
		t.Errorf("%+v", second)
	}
	if results, err := k.ModifyDeadline(t.Context(), op, "one", ackIDs(second...), time.Millisecond); err != nil || results[0] != nil {
		t.Errorf("shortening: %v %v", results, err)
	}
	third := take(t, r, 1)
	if third[0].Attempt != 3 {
		t.Errorf("%+v", third)
	}
	k.ack("one", nil, first...)
	if s := k.subscription("one"); s.Lag != 0 {
		t.Errorf("a late acknowledgement did not count: %+v", s)
	}
	k.ack("one", nil, third...)
	if results, err := k.Ack(t.Context(), op, "one", []string{"nonsense"}); err != nil || !errors.Is(results[0], broker.ErrAckID) {
		t.Errorf("%v %v", results, err)
	}
}

func TestResourcesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("orders", broker.SubscriptionConfig{Name: "one", Labels: map[string]string{"team": "blue"}}, broker.SubscriptionConfig{Name: "gone"})
	k.say("orders", "", "a", "b", "c")
	r := k.receiver("one", broker.ReceiverConfig{})
	got := take(t, r, 3)
	k.ack("one", nil, got[1])
	k.nack("one", got[2])
	if err := k.DeleteSubscription(t.Context(), op, "gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := k.UpdateSubscription(t.Context(), op, "one", func(c *broker.SubscriptionConfig) error { c.AckDeadline = 33 * time.Second; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := k.UpdateTopic(t.Context(), op, "orders", func(c *broker.TopicConfig) error { c.Labels = map[string]string{"a": "b"}; return nil }); err != nil {
		t.Fatal(err)
	}
	k.stop()

	k = newBench(t, dir)
	c, err := k.Broker.Subscription(t.Context(), "one")
	if err != nil || c.AckDeadline != 33*time.Second || c.Labels["team"] != "blue" || c.Owner != op {
		t.Errorf("%+v %v", c, err)
	}
	if topic, err := k.Topic(t.Context(), "orders"); err != nil || topic.Labels["a"] != "b" {
		t.Errorf("%+v %v", topic, err)
	}
	if all := k.ListSubscriptions(t.Context()); len(all) != 1 {
		t.Errorf("%+v", all)
	}
	again := take(t, k.receiver("one", broker.ReceiverConfig{}), 2)
	if data(again) != "a c" || again[0].Attempt != 1 || again[1].Attempt != 2 {
		t.Errorf("%+v", again)
	}
	k.ack("one", nil, got[0]) // of before the restart
	if s := k.subscription("one"); s.Lag != 1 {
		t.Errorf("%+v", s)
	}
}

func TestResourceErrors(t *testing.T) {
	k := newBench(t, t.TempDir())
	s := shop("payments")
	s.Services[1].Manifest.File, s.Services[1].Manifest.Lines = "payments/shoal.yaml", map[string]int{"subscribes": 7}
	k.Install(s)
	k.topic("mine", broker.SubscriptionConfig{Name: "one"}, broker.SubscriptionConfig{Name: "pushed", Push: &broker.PushConfig{Endpoint: "http://payments/x"}})
	ctx := t.Context()
	create := func(caller string, c broker.SubscriptionConfig) error {
		_, err := k.CreateSubscription(ctx, caller, c)
		return err
	}
	receive := func(caller, name string) error {
		_, err := k.NewReceiver(ctx, caller, name, broker.ReceiverConfig{})
		return err
	}
	update := func(change func(*broker.SubscriptionConfig)) error {
		_, err := k.UpdateSubscription(ctx, op, "one", func(c *broker.SubscriptionConfig) error { change(c); return nil })
		return err
	}
	topic := func(_ broker.TopicConfig, err error) error { return err }
	for name, c := range map[string]struct {
		err         error
		status      int
		field, text string
	}{
		"topic twice":               {err: topic(k.CreateTopic(ctx, op, broker.TopicConfig{Name: "mine"})), status: http.StatusConflict},
		"topic of a manifest":       {err: topic(k.CreateTopic(ctx, op, broker.TopicConfig{Name: "orders.placed"})), status: http.StatusConflict, text: "orders/shoal.yaml:12"},
		"topic of a service":        {err: topic(k.CreateTopic(ctx, "payments", broker.TopicConfig{Name: "new"})), status: http.StatusForbidden, text: "publishes: [new]"},
		"deleting a manifest's":     {err: k.DeleteTopic(ctx, op, "orders.placed"), status: http.StatusPreconditionFailed, text: "orders/shoal.yaml:12"},
		"retention":                 {err: topic(k.CreateTopic(ctx, op, broker.TopicConfig{Name: "new", Retention: time.Second})), status: 400, field: "message_retention_duration"},
		"unknown topic":             {err: create(op, broker.SubscriptionConfig{Name: "sub", Topic: "nothing"}), status: http.StatusNotFound},
		"subscription twice":        {err: create(op, broker.SubscriptionConfig{Name: "one", Topic: "mine"}), status: http.StatusConflict},
		"of a manifest":             {err: create(op, broker.SubscriptionConfig{Name: "payments.orders.placed", Topic: "mine"}), status: http.StatusConflict, text: "payments/shoal.yaml:7"},
		"undeclared":                {err: create("orders", broker.SubscriptionConfig{Name: "sub", Topic: "orders.placed"}), status: http.StatusForbidden, text: "orders.placed: pull"},
		"stranger":                  {err: create("nobody", broker.SubscriptionConfig{Name: "sub", Topic: "mine"}), status: http.StatusForbidden},
		"name":                      {err: create(op, broker.SubscriptionConfig{Name: "1x", Topic: "mine"}), status: 400, field: "name"},
		"ack deadline":              {err: create(op, broker.SubscriptionConfig{Name: "sub", Topic: "mine", AckDeadline: time.Second}), status: 400, field: "ack_deadline_seconds"},
		"attempts":                  {err: create(op, broker.SubscriptionConfig{Name: "sub", Topic: "mine", DeadLetter: &broker.DeadLetterPolicy{Topic: "mine", Attempts: 101}}), status: 400, field: "dead_letter_policy.max_delivery_attempts"},
		"dead letter topic":         {err: create(op, broker.SubscriptionConfig{Name: "sub", Topic: "mine", DeadLetter: &broker.DeadLetterPolicy{Topic: "nothing"}}), status: 404},
		"filter":                    {err: create(op, broker.SubscriptionConfig{Name: "sub", Topic: "mine", Filter: "attributes."}), status: 400, field: "filter"},
		"endpoint":                  {err: create(op, broker.SubscriptionConfig{Name: "sub", Topic: "mine", Push: &broker.PushConfig{Endpoint: "x"}}), status: 400, field: "push_config.push_endpoint"},
		"immutable":                 {err: update(func(c *broker.SubscriptionConfig) { c.Ordering = true }), status: 400, field: "enable_message_ordering"},
		"pull of nothing":           {err: receive(op, "nothing"), status: 404},
		"pull of another's":         {err: receive("payments", "one"), status: http.StatusForbidden},
		"pull of a push":            {err: receive(op, "pushed"), status: http.StatusPreconditionFailed},
		"pull of a manifest's push": {err: receive("payments", "payments.orders.placed"), status: http.StatusPreconditionFailed},
		"empty message":             {err: second(k.PublishMessages(ctx, op, "mine", []broker.Message{{}})), status: 400, field: "messages"},
		"reserved attribute":        {err: second(k.PublishMessages(ctx, op, "mine", []broker.Message{{Attributes: map[string]string{"googX": ""}}})), status: 400, field: "messages.attributes"},
		"publish to nothing":        {err: second(k.PublishMessages(ctx, op, "nothing", []broker.Message{{Data: []byte("x")}})), status: 404},
		"publish undeclared":        {err: second(k.PublishMessages(ctx, "payments", "orders.placed", []broker.Message{{Data: []byte("x")}})), status: http.StatusForbidden},
	} {
		var e *broker.Error
		if !errors.As(c.err, &e) || e.Status != c.status || e.Field != c.field || !strings.Contains(e.Text, c.text) {
			t.Errorf("%s: %+v, want %d %q %q", name, c.err, c.status, c.field, c.text)
		}
	}
}

func second(_ []string, err error) error { return err }

// TestEventsAndMessagesAreOneRecord publishes by each way in and takes by each way out.
func TestEventsAndMessagesAreOneRecord(t *testing.T) {
	k := newBench(t, t.TempDir())
	payments, plain := new(inbox), new(inbox)
	k.handle("payments", payments)
	k.handle("hook", plain)
	k.Install(shop("payments"))
	for _, c := range []broker.SubscriptionConfig{
		{Name: "pulled", Topic: "orders.placed"},
		{Name: "hooked", Topic: "orders.placed", Push: &broker.PushConfig{Endpoint: "http://hook/x"}},
	} {
		if _, err := k.CreateSubscription(t.Context(), op, c); err != nil {
			t.Fatal(err)
		}
	}
	event := broker.Event{Topic: "orders.placed", ID: "e1", Source: "/s", Type: "t", ContentType: "text/plain", Data: []byte("event"), Attributes: map[string]string{"subject": "x", "partitionkey": "p"}}
	if _, err := k.Publish(t.Context(), "orders", event); err != nil {
		t.Fatal(err)
	}
	bound := map[string]string{"ce-specversion": "1.0", "ce-id": "e2", "ce-source": "/b", "ce-type": "u", "ce-tenant": "blue", "other": "X"}
	if _, err := k.PublishMessages(t.Context(), "orders", "orders.placed", []broker.Message{
		{Data: []byte("bound"), Attributes: bound}, {Data: []byte("plain"), Attributes: map[string]string{"kind": "k", "Not Legal": "x"}, OrderingKey: "o"}}); err != nil {
		t.Fatal(err)
	}
	got := take(t, k.receiver("pulled", broker.ReceiverConfig{}), 3)
	a := got[0].Attributes
	if data(got) != "event bound plain" || a["ce-id"] != "e1" || a["ce-source"] != "/s" || a["ce-type"] != "t" || a["ce-subject"] != "x" || a["Content-Type"] != "text/plain" || got[0].OrderingKey != "p" {
		t.Errorf("pulled: %+v", got)
	}
	eventually(t, "three pushes each", func() bool { return len(payments.got()) == 3 && len(plain.got()) == 3 })
	for i, body := range payments.got() {
		h := payments.head(i)
		want := map[string]string{
			"event": "e1 /s t  x", "bound": "e2 /b u blue ", "plain": "2 orders orders.placed  "}[body]
		if got := strings.Join([]string{h.Get("Ce-Id"), h.Get("Ce-Source"), h.Get("Ce-Type"), h.Get("Ce-Tenant"), h.Get("Ce-Subject")}, " "); got != want {
			t.Errorf("%s was pushed as %q, want %q", body, got, want)
		}
		if body == "plain" && h.Get("Ce-Kind") != "k" {
			t.Errorf("extensions of %s: %v", body, h)
		}
	}
	if !slices.ContainsFunc(plain.got(), func(body string) bool {
		return strings.Contains(body, `"data":"cGxhaW4="`) && strings.Contains(body, `"messageId":"2"`) && strings.Contains(body, `"orderingKey":"o"`) && strings.Contains(body, `"subscription":"projects/shop/subscriptions/hooked"`)
	}) {
		t.Errorf("envelopes: %q", plain.got())
	}
}
