package broker_test

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

const (
	requestTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ownTrace     = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
)

// One trace runs through the publish of an event and through every attempt to deliver it.
func TestOneTraceRunsThroughPublishAndDelivery(t *testing.T) {
	k := newBench(t, t.TempDir())
	payments := &inbox{answer: func(n int, _ *http.Request, w http.ResponseWriter) {
		if n < 3 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}}
	k.handle("payments", payments)
	k.Install(shop("payments"))
	k.send("orders", "POST", "orders.placed", strings.NewReader("hello"), "Traceparent", requestTrace, "Tracestate", "foo=1")
	eventually(t, "publish and three attempts", func() bool { return len(k.seen()) == 4 })
	seen := k.publishFirst()
	publish := seen[0]
	if publish.Kind != fleet.KindPublish || publish.ParentID.String() != "b7ad6b7169203331" || publish.Event == "" {
		t.Fatalf("publish: %+v", publish)
	}
	before := fleet.SpanID{}
	for i, o := range seen[1:] {
		if o.TraceID.String() != "0af7651916cd43dd8448eb211c80319c" || !o.Sampled || o.ParentID != publish.SpanID || o.LinkID != before || o.Event != publish.Event {
			t.Errorf("attempt %d: %+v", i+1, o)
		}
		head := payments.head(i)
		if want := "00-" + o.TraceID.String() + "-" + o.SpanID.String() + "-01"; head.Get("Traceparent") != want || head.Get("Tracestate") != "foo=1" || o.TraceState != "foo=1" {
			t.Errorf("attempt %d was told %q, %q; want %s", i+1, head.Get("Traceparent"), head.Get("Tracestate"), want)
		}
		if want := "00-" + o.TraceID.String() + "-" + publish.SpanID.String() + "-01"; head.Get("Ce-Traceparent") != want || head.Get("Ce-Tracestate") != "foo=1" {
			t.Errorf("attempt %d: the event says %q, %q; want %s", i+1, head.Get("Ce-Traceparent"), head.Get("Ce-Tracestate"), want)
		}
		before = o.SpanID
	}
}

// publishFirst returns what was observed: a delivery may be told before its publish.
func (k *bench) publishFirst() []fleet.Observation {
	seen := k.seen()
	slices.SortStableFunc(seen, func(a, b fleet.Observation) int {
		return cmp.Compare(b.Kind, a.Kind) // publish comes after delivery in the alphabet
	})
	return seen
}

func TestTraceOfAPublish(t *testing.T) {
	for _, c := range []struct {
		name          string
		header, event string // traceparent
		trace, parent string // empty: a new trace
		link          string
		kept          string // ce-traceparent; empty: that of the publish
		sampled       bool
	}{
		{name: "of the request", header: requestTrace, trace: requestTrace[3:35], parent: requestTrace[36:52], sampled: true},
		{name: "of nobody", sampled: true},
		{name: "of a request that is malformed", header: "00-x", sampled: true},
		{name: "of the event itself", header: requestTrace, event: ownTrace, trace: ownTrace[3:35], parent: ownTrace[36:52], kept: ownTrace},
		{name: "of both, which are one", header: requestTrace, event: requestTrace[:36] + "00f067aa0ba902b7-01", trace: requestTrace[3:35], parent: "00f067aa0ba902b7",
			link: requestTrace[36:52], kept: requestTrace[:36] + "00f067aa0ba902b7-01", sampled: true},
		{name: "of an event that is malformed", header: requestTrace, event: "mine", trace: requestTrace[3:35], parent: requestTrace[36:52], kept: "mine", sampled: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newBench(t, t.TempDir())
			payments := new(inbox)
			k.handle("payments", payments)
			k.Install(shop("payments"))
			send := []string{"Traceparent", c.header}
			if c.event != "" {
				send = append(send, "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "/s", "Ce-Type", "t", "Ce-Traceparent", c.event)
			}
			k.send("orders", "POST", "orders.placed", strings.NewReader("hello"), send...)
			eventually(t, "publish and delivery", func() bool { return len(k.seen()) == 2 && len(payments.got()) == 1 })
			o := k.publishFirst()[0]
			if c.trace != "" && o.TraceID.String() != c.trace || o.TraceID == (fleet.TraceID{}) || o.Sampled != c.sampled {
				t.Errorf("trace %v, sampled %v", o.TraceID, o.Sampled)
			}
			for name, pair := range map[string][2]string{"parent": {o.ParentID.String(), c.parent}, "link": {o.LinkID.String(), c.link}} {
				if want := pair[1]; pair[0] != want && (want != "" || pair[0] != "0000000000000000") {
					t.Errorf("%s is %s, want %s", name, pair[0], want)
				}
			}
			if got := payments.head(0).Get("Ce-Traceparent"); c.kept != "" && got != c.kept || c.kept == "" && !strings.Contains(got, o.SpanID.String()) {
				t.Errorf("the event says %q", got)
			}
		})
	}
}

func TestEventsThatNobodySamples(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) { c.Sampler = observe.NewSampler(0) })
	payments := new(inbox)
	k.handle("payments", payments)
	k.Install(shop("payments"))
	k.publish("one")
	eventually(t, "delivery", func() bool { return len(payments.got()) == 1 })
	if got := payments.head(0).Get("Traceparent"); !strings.HasSuffix(got, "-00") {
		t.Error(got)
	}
}

// A pulled message carries the span of its delivery, which ends with its acknowledgement, and is linked to the one before: also after a
// restart, and when it is redriven.
func TestOneTraceRunsThroughPulls(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.Install(shop())
	policy := &broker.DeadLetterPolicy{Attempts: 5}
	k.topic("orders", broker.SubscriptionConfig{Name: "one", DeadLetter: policy})
	attributes := map[string]string{broker.ClientTraceparent: ownTrace[:53] + "01", broker.ClientTracestate: "bar=2"}
	if _, err := k.PublishMessages(t.Context(), op, "orders", []broker.Message{{Data: []byte("x"), Attributes: attributes, Traceparent: requestTrace, Tracestate: "foo=1"}}); err != nil {
		t.Fatal(err)
	}
	publish := k.seen()[0]
	if publish.TraceID.String() != ownTrace[3:35] || publish.ParentID.String() != ownTrace[36:52] || publish.TraceState != "bar=2" {
		t.Fatalf("%+v", publish)
	}
	before := fleet.SpanID{}
	hand := func(what, reason string, settle func(d broker.Delivery)) {
		t.Helper()
		d := take(t, k.receiver("one", broker.ReceiverConfig{}), 1)[0]
		if _, err := k.ModifyDeadline(t.Context(), op, "one", ackIDs(d), 30e9); err != nil {
			t.Fatal(err)
		}
		settle(d)
		all := k.seen()
		o := all[len(all)-1]
		if o.Kind != fleet.KindDelivery || o.Subscription != "one" || int(o.Delivery) != d.Attempt || o.Callee != op || o.Event != "0" || o.Extended != 1 || o.Reason != reason || o.RequestID != publish.RequestID {
			t.Errorf("%s: %+v", what, o)
		}
		if o.TraceID != publish.TraceID || o.ParentID != publish.SpanID || o.LinkID != before || d.Traceparent != "00-"+o.TraceID.String()+"-"+o.SpanID.String()+"-01" || d.Tracestate != "bar=2" {
			t.Errorf("%s: linked to %v, not to %v; %+v", what, o.LinkID, before, o)
		}
		before = o.SpanID
	}
	hand("given back", "nacked", func(d broker.Delivery) { k.nack("one", d) })
	k.stop()
	k = newBench(t, dir)
	k.Install(shop())
	for range 4 {
		hand("given back again", "nacked", func(d broker.Delivery) { k.nack("one", d) })
	}
	eventually(t, "a dead letter", func() bool { return k.subscription("one").DeadLetters == 1 })
	letters, err := k.letters("one")
	if err != nil || len(letters) != 1 || letters[0].Failures[4].SpanID != before {
		t.Fatalf("%+v %v", letters, err)
	}
	if _, err := k.RedriveDeadLetters(t.Context(), broker.Redrive{Subscription: "one"}); err != nil {
		t.Fatal(err)
	}
	hand("redriven", "", func(d broker.Delivery) { k.ack("one", nil, d) })
}

// What an earlier failure of its ordering key takes back is told, too; and so is an acknowledgement that comes late.
func TestPullsThatEndOtherwise(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.Install(shop())
	k.topic("orders", broker.SubscriptionConfig{Name: "one", Ordering: true})
	k.say("orders", "key", "a", "b")
	r := k.receiver("one", broker.ReceiverConfig{})
	got := take(t, r, 2)
	k.nack("one", got[0])
	k.ack("one", nil, got[0])
	var told []string
	for _, o := range k.seen() {
		if o.Kind == fleet.KindDelivery {
			told = append(told, o.Event+" "+cmp.Or(o.Reason, o.Detail))
		}
	}
	want := []string{"0 nacked", "1 taken-back", "0 acknowledged late, when it had failed already"}
	if !slices.Equal(told, want) {
		t.Errorf("%q", told)
	}
}
