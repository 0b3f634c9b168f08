package broker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// sdkReceiver is a receiver written with the CloudEvents SDK. Each request has a handler of its own: two that share one take each other's events,
// and the second waits for ever when the first is answered before it.
func sdkReceiver(t *testing.T) (h http.Handler, events func() []cloudevents.Event) {
	t.Helper()
	var mu sync.Mutex
	var got []cloudevents.Event
	take := func(e cloudevents.Event) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, e)
	}
	h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := cloudevents.NewHTTP()
		if err != nil {
			t.Error(err)
			return
		}
		one, err := cloudevents.NewHTTPReceiveHandler(r.Context(), p, take)
		if err != nil {
			t.Error(err)
			return
		}
		one.ServeHTTP(w, r)
	})
	return h, func() []cloudevents.Event {
		mu.Lock()
		defer mu.Unlock()
		return append([]cloudevents.Event(nil), got...)
	}
}

func sdkEvent(t *testing.T, id string) cloudevents.Event {
	t.Helper()
	e := cloudevents.NewEvent()
	e.SetID(id)
	e.SetSource("/shop/orders?x=1")
	e.SetType("com.example.placed")
	e.SetSubject(`Größe "5%" €`)
	e.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 678000000, time.UTC))
	e.SetDataSchema("https://example.com/schema.json")
	e.SetExtension("tenant", "blue")
	e.SetExtension("count", 7)
	if err := e.SetData(cloudevents.ApplicationJSON, map[string]any{"order": id, "n": 1.5}); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestCloudEventsSDK(t *testing.T) {
	k := newBench(t, t.TempDir())
	handler, events := sdkReceiver(t)
	k.handle("payments", handler)
	k.Install(shop("payments"))
	p, err := cloudevents.NewHTTP(cehttp.WithTarget("http://events/orders.placed"), cehttp.WithRoundTripper(k.client("orders").Transport))
	if err != nil {
		t.Fatal(err)
	}
	client, err := cloudevents.NewClient(p)
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]func(context.Context) context.Context{
		"binary": cloudevents.WithEncodingBinary, "structured": cloudevents.WithEncodingStructured,
	}
	for name, with := range modes {
		if result := client.Send(with(t.Context()), sdkEvent(t, name)); !cloudevents.IsACK(result) {
			t.Fatalf("%s: %v", name, result)
		}
	}
	batch, err := json.Marshal([]cloudevents.Event{sdkEvent(t, "batch0"), sdkEvent(t, "batch1")})
	if err != nil {
		t.Fatal(err)
	}
	status, body := k.post("orders", "orders.placed", batch, "Content-Type", "application/cloudevents-batch+json; charset=UTF-8")
	if status != http.StatusAccepted || !strings.Contains(body, `{"ids":["batch0","batch1"]}`) {
		t.Fatalf("batch: %d %s", status, body)
	}
	eventually(t, "all four", func() bool { return len(events()) == 4 })
	seen := make(map[string]bool)
	for _, e := range events() {
		seen[e.ID()] = true
		want := sdkEvent(t, e.ID())
		if e.Source() != want.Source() || e.Type() != want.Type() || !e.Time().Equal(want.Time()) || e.DataSchema() != want.DataSchema() ||
			fmt.Sprintf("%v %v", e.Extensions()["tenant"], e.Extensions()["count"]) != "blue 7" || e.DataContentType() != want.DataContentType() {
			t.Errorf("%s arrived as %v", e.ID(), e)
		}
		if subject, err := url.PathUnescape(e.Subject()); err != nil || subject != want.Subject() { // the SDK decodes nothing
			t.Errorf("%s: subject %q", e.ID(), e.Subject())
		}
		if !bytes.Equal(e.Data(), want.Data()) {
			t.Errorf("%s: data %s", e.ID(), e.Data())
		}
	}
	if len(seen) != 4 {
		t.Errorf("events: %v", seen)
	}
}

// post publishes a body and returns the answer's status and body.
func (k *bench) post(caller, topic string, body []byte, head ...string) (int, string) {
	k.t.Helper()
	resp := k.send(caller, http.MethodPost, topic, bytes.NewReader(body), head...)
	return resp.StatusCode, resp.Status
}

type answer struct {
	StatusCode int
	Status     string // the body
	Header     http.Header
}

func (k *bench) send(caller, method, topic string, body io.Reader, head ...string) answer {
	k.t.Helper()
	req, err := http.NewRequest(method, "http://events/"+topic, body)
	if err != nil {
		k.t.Fatal(err)
	}
	for i := 0; i < len(head); i += 2 {
		req.Header.Add(head[i], head[i+1])
	}
	resp, err := k.client(caller).Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		k.t.Fatal(err)
	}
	return answer{resp.StatusCode, string(text), resp.Header}
}

func TestPlainBody(t *testing.T) {
	k := newBench(t, t.TempDir())
	payments := new(inbox)
	k.handle("payments", payments)
	k.Install(shop("payments"))
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	a := k.send("orders", "POST", "orders.placed", strings.NewReader("hello"), "Content-Type", "text/plain", "Traceparent", trace, "X-Request-Id", "req-1")
	var accepted broker.Accepted
	if err := json.Unmarshal([]byte(a.Status), &accepted); err != nil || a.StatusCode != http.StatusAccepted || len(accepted.IDs) != 1 {
		t.Fatalf("%d %s", a.StatusCode, a.Status)
	}
	eventually(t, "delivery", func() bool { return len(payments.got()) == 1 })
	head := payments.head(0)
	want := map[string]string{"Ce-Id": accepted.IDs[0], "Ce-Source": "orders", "Ce-Type": "orders.placed", "Content-Type": "text/plain", "X-Request-Id": "req-1"}
	for name, value := range want {
		if head.Get(name) != value {
			t.Errorf("%s is %q, want %q", name, head.Get(name), value)
		}
	}
	if len(head.Get("Idempotency-Key")) != 32 || payments.got()[0] != "hello" {
		t.Errorf("key %q, body %q", head.Get("Idempotency-Key"), payments.got()[0])
	}
	eventually(t, "both observations", func() bool { return len(k.seen()) == 2 })
	o := k.publishFirst()
	if o[0].Kind != fleet.KindPublish || o[0].Caller != "orders" || o[0].Topic != "orders.placed" || o[0].Status != 202 || o[0].RequestID != "req-1" {
		t.Errorf("publish observed as %+v", o[0])
	}
	if o[1].Kind != fleet.KindDelivery || o[1].Callee != "payments" || o[1].Status != 204 || o[1].RequestID != "req-1" || o[1].Failed() {
		t.Errorf("delivery observed as %+v", o[1])
	}
}

func TestRefusals(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.Install(shop("payments"))
	ce := func(id, source, kind, version string) []string {
		return []string{"Ce-Id", id, "Ce-Source", source, "Ce-Type", kind, "Ce-Specversion", version}
	}
	structured := []string{"Content-Type", "application/cloudevents+json"}
	batch := []string{"Content-Type", "application/cloudevents-batch+json"}
	tests := []struct {
		name, caller, method, topic, body string
		head                              []string
		status                            int
		says                              string
	}{
		{"no id", "orders", "POST", "orders.placed", "x", ce("", "s", "t", "1.0"), 400, "ce-id is missing"},
		{"no source", "orders", "POST", "orders.placed", "x", []string{"Ce-Id", "1", "Ce-Type", "t", "Ce-Specversion", "1.0"}, 400, "ce-source is missing"},
		{"no type", "orders", "POST", "orders.placed", "x", ce("1", "s", "", "1.0"), 400, "ce-type is missing"},
		{"no specversion", "orders", "POST", "orders.placed", "x", []string{"Ce-Id", "1"}, 400, "ce-specversion is missing"},
		{"old specversion", "orders", "POST", "orders.placed", "x", ce("1", "s", "t", "0.3"), 400, `ce-specversion is "0.3"; only 1.0`},
		{"bad source", "orders", "POST", "orders.placed", "x", ce("1", "http://[", "t", "1.0"), 400, "no URI reference"},
		{"bad time", "orders", "POST", "orders.placed", "x", append(ce("1", "s", "t", "1.0"), "Ce-Time", "today"), 400, "RFC 3339"},
		{"bad name", "orders", "POST", "orders.placed", "x", append(ce("1", "s", "t", "1.0"), "Ce-My-Name", "v"), 400, "attribute name"},
		{"control", "orders", "POST", "orders.placed", "x", append(ce("1", "s", "t", "1.0"), "Ce-Subject", "a%00b"), 400, "control character"},
		{"twice", "orders", "POST", "orders.placed", "x", append(ce("1", "s", "t", "1.0"), "Ce-Id", "2"), 400, "2 times"},
		{"no media type", "orders", "POST", "orders.placed", "x", append(ce("1", "s", "t", "1.0"), "Content-Type", "a b"), 400, "no media type"},
		{"long attributes", "orders", "POST", "orders.placed", `{"specversion":"1.0","id":"1","source":"s","type":"t","long":"` + strings.Repeat("x", 70000) + `"}`, structured, 400, "at most 65536"},
		{"bad json", "orders", "POST", "orders.placed", "{", structured, 400, "not a structured CloudEvent"},
		{"null json", "orders", "POST", "orders.placed", "null", structured, 400, "object is wanted"},
		{"json without id", "orders", "POST", "orders.placed", `{"specversion":"1.0","source":"s","type":"t"}`, structured, 400, `"id" is missing`},
		{"json object attribute", "orders", "POST", "orders.placed", `{"specversion":"1.0","id":"1","source":"s","type":"t","x":{}}`, structured, 400, `"x": objects`},
		{"both data", "orders", "POST", "orders.placed", `{"specversion":"1.0","id":"1","source":"s","type":"t","data":1,"data_base64":""}`, structured, 400, "both data"},
		{"bad base64", "orders", "POST", "orders.placed", `{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"*"}`, structured, 400, "data_base64"},
		{"batch of what", "orders", "POST", "orders.placed", `{}`, batch, 400, "not a batch"},
		{"bad in batch", "orders", "POST", "orders.placed", `[{"specversion":"1.0","id":"1","source":"s","type":"t"},{}]`, batch, 400, "event 1 of the batch"},
		{"avro", "orders", "POST", "orders.placed", "x", []string{"Content-Type", "application/cloudevents+avro"}, 415, "not understood"},
		{"gzip", "orders", "POST", "orders.placed", "x", []string{"Content-Encoding", "gzip"}, 415, "content coding"},
		{"get", "orders", "GET", "orders.placed", "", nil, 405, "POST http://events/TOPIC"},
		{"no topic", "orders", "POST", "", "x", nil, 400, "names no topic"},
		{"bad topic", "orders", "POST", "a/b", "x", nil, 400, "'/'"},
		{"undeclared", "payments", "POST", "orders.placed", "x", nil, 403, "payments may not publish to orders.placed: payments/shoal.yaml does not declare it"},
		{"unknown topic", "orders", "POST", "orders.plaecd", "x", nil, 403, "did you mean orders.placed?"},
		{"unknown service", "ghost", "POST", "orders.placed", "x", nil, 403, `"ghost" is no service`},
		{"nobody", "", "POST", "orders.placed", "x", []string{"Shoal-Caller", "orders"}, 403, "the caller is no service"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := k.send(test.caller, test.method, test.topic, strings.NewReader(test.body), test.head...)
			if a.StatusCode != test.status || !strings.Contains(a.Status, test.says) {
				t.Errorf("answer %d %s\nwant %d with %q", a.StatusCode, a.Status, test.status, test.says)
			}
			if a.Header.Get("Shoal-Reason") == "" || !strings.Contains(a.Status, "shoal why "+a.Header.Get("X-Request-Id")) {
				t.Errorf("headers %v, body %s", a.Header, a.Status)
			}
		})
	}
	if topics := k.Topics(); topics[0].Published != 0 {
		t.Errorf("something refused was accepted: %+v", topics)
	}
}

// A refusal without a reason of the table's names none; an empty batch is accepted, with no ids.
func TestSmallAnswers(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.Install(shop("payments"))
	a := k.send("orders", "DELETE", "orders.placed/nothing", nil)
	if _, named := a.Header["Shoal-Reason"]; a.StatusCode != 400 || named || strings.Contains(a.Status, "reason") || !strings.Contains(a.Status, "shoal why "+a.Header.Get("X-Request-Id")) {
		t.Errorf("%d %v %s", a.StatusCode, a.Header, a.Status)
	}
	if status, body := k.post("orders", "orders.placed", []byte("[]"), "Content-Type", "application/cloudevents-batch+json"); status != http.StatusAccepted || strings.TrimSpace(body) != `{"ids":[]}` {
		t.Errorf("%d %s", status, body)
	}
}

func TestUndeclaredNamesTheLine(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.Install(shop())
	_, text := k.post("orders", "orders.paid", []byte("x"))
	want := "orders may not publish to orders.paid: orders/shoal.yaml does not declare it.\nAdd it under `publishes:` (orders/shoal.yaml:12):\n\n    publishes: [orders.placed, orders.paid]\n"
	if !strings.HasPrefix(text, want) {
		t.Errorf("got %s", text)
	}
	_, err := k.NewReceiver(t.Context(), "orders", "orders.orders.paid", broker.ReceiverConfig{})
	want = "orders may not subscribe to orders.paid: its manifest does not declare it.\nAdd to orders/shoal.yaml:\n\n    subscribes:\n      orders.paid: pull\n"
	if broker.StatusOf(err) != http.StatusForbidden || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("a pull: %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	k := newBench(t, t.TempDir())
	payments := new(inbox)
	k.handle("payments", payments)
	k.Install(shop("payments"))
	if status, text := k.post("orders", "orders.placed", make([]byte, 10<<20)); status != http.StatusAccepted {
		t.Fatalf("10 MB: %d %s", status, text)
	}
	eventually(t, "10 MB delivered", func() bool { return len(payments.got()) == 1 && len(payments.got()[0]) == 10<<20 })
	if status, text := k.post("orders", "orders.placed", make([]byte, 10<<20+1)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("with a length: %d %s", status, text)
	}
	a := k.send("orders", "POST", "orders.placed", io.MultiReader(bytes.NewReader(make([]byte, 10<<20+1))))
	if a.StatusCode != http.StatusRequestEntityTooLarge || a.Header.Get("Shoal-Reason") != "too-large" {
		t.Errorf("chunked: %d %s", a.StatusCode, a.Status)
	}
}

// TestLargestMessageGoesOut takes 10 MB by each way out.
func TestLargestMessageGoesOut(t *testing.T) {
	k := newBench(t, t.TempDir())
	wrapped, bare := new(inbox), new(inbox)
	k.handle("wrapped", wrapped)
	k.handle("bare", bare)
	k.topic("large", broker.SubscriptionConfig{Name: "pulled"},
		broker.SubscriptionConfig{Name: "wrapped", Push: &broker.PushConfig{Endpoint: "http://wrapped/"}},
		broker.SubscriptionConfig{Name: "bare", Push: &broker.PushConfig{Endpoint: "http://bare/", Unwrapped: true}})
	large := strings.Repeat("0123456789abcdef", 10<<20/16)
	k.say("large", "", large)
	if got := take(t, k.receiver("pulled", broker.ReceiverConfig{}), 1); string(got[0].Data) != large {
		t.Errorf("%d bytes were pulled", len(got[0].Data))
	}
	eventually(t, "both pushes", func() bool { return len(wrapped.got()) == 1 && len(bare.got()) == 1 })
	if got := bare.got()[0]; got != large {
		t.Errorf("%d bytes were pushed", len(got))
	}
	var envelope struct{ Message struct{ Data []byte } }
	if err := json.Unmarshal([]byte(wrapped.got()[0]), &envelope); err != nil || string(envelope.Message.Data) != large {
		t.Errorf("%d bytes were pushed in an envelope (%v)", len(envelope.Message.Data), err)
	}
}

func TestLearning(t *testing.T) {
	k := newBench(t, t.TempDir())
	s := shop("payments")
	s.Services[0].Learn, s.Services[0].Manifest.Publishes = true, nil
	k.Install(s)
	if status, text := k.post("orders", "orders.placed", []byte("x")); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, text)
	}
	if _, err := k.PublishMessages(t.Context(), "orders", "orders.new", []broker.Message{{Data: []byte("x")}}); err != nil {
		t.Error(err)
	}
	if _, err := k.NewReceiver(t.Context(), "orders", "orders.orders.paid", broker.ReceiverConfig{}); broker.StatusOf(err) != http.StatusNotFound || !strings.Contains(err.Error(), "shoal learn --write") {
		t.Errorf("a pull: %v", err)
	}
	for _, want := range []fleet.Learned{
		{Service: "orders", Section: "publishes", Entry: "orders.placed"}, {Service: "orders", Section: "publishes", Entry: "orders.new"},
		{Service: "orders", Section: "subscribes", Entry: "orders.paid"},
	} {
		eventually(t, "what was learned", func() bool {
			return slices.ContainsFunc(k.seen(), func(o fleet.Observation) bool { return o.Learned != nil && *o.Learned == want && o.Status < 300 })
		})
	}
}

func TestOperatorPublishesAnywhere(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.Install(shop())
	status, text := k.post("orders", "orders.placed", []byte("x"), "Shoal-Caller", fleet.Operator)
	if status != http.StatusAccepted || strings.Contains(text, "warning") {
		t.Errorf("known topic: %d %s", status, text)
	}
	topic := "odd.~+%25" + strings.Repeat("z", 200)
	status, text = k.post("orders", topic, []byte("x"), "Shoal-Caller", fleet.Operator)
	if status != http.StatusAccepted || !strings.Contains(text, "No service of the fleet publishes or subscribes") {
		t.Errorf("unknown topic: %d %s", status, text)
	}
}
