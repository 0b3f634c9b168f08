//go:build unix

package e2e

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shoalrun/shoal/fleet"
)

// collector takes OTLP over HTTP, as any tracing backend does.
type collector struct {
	mu    sync.Mutex
	spans []traced
}

type traced struct {
	*tracepb.Span
	service string
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var m collectorpb.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &m) != nil {
		http.Error(w, "that is no OTLP", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range m.ResourceSpans {
		service := ""
		for _, a := range rs.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, scope := range rs.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, traced{s, service})
			}
		}
	}
}

// ways returns, for each span of a trace that no other is beneath, the way from the trace's beginning to it.
func (c *collector) ways(trace, root string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	by, above := map[string]traced{}, map[string]bool{}
	for _, s := range c.spans {
		if hex.EncodeToString(s.TraceId) == trace {
			by[hex.EncodeToString(s.SpanId)] = s
			above[hex.EncodeToString(s.ParentSpanId)] = true
		}
	}
	var all []string
	for id := range maps.Keys(by) {
		if above[id] {
			continue
		}
		var way []string
		for s, ok := by[id]; ok; s, ok = by[id] {
			way = append(way, s.service+" "+strings.ToLower(strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_")))
			id = hex.EncodeToString(s.ParentSpanId)
		}
		if id == root {
			slices.Reverse(way)
			all = append(all, strings.Join(way, ", "))
		}
	}
	slices.Sort(all)
	return all
}

// traceOf sends a request by the gateway within a trace.
func (w *world) traceOf(method, service, path, body, trace, root string) {
	w.Helper()
	req, err := http.NewRequest(method, "http://"+w.status().Gateway+path, strings.NewReader(body))
	must(w, err)
	req.Host = service + ".localhost"
	req.Header.Set("Traceparent", "00-"+trace+"-"+root+"-01")
	resp, err := http.DefaultClient.Do(req)
	must(w, err)
	text, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		w.Fatalf("%s %s: %s %s", service, path, resp.Status, text)
	}
}

const (
	callTrace  = "0af7651916cd43dd8448eb211c80319c"
	eventTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	rootSpan   = "b7ad6b7169203331"
)

// One trace runs through three services, and one through an event and its delivery, without a tracer in any.
func TestTraces(t *testing.T) {
	inEach(t, func(t *testing.T, s setting) {
		c := new(collector)
		receiver := httptest.NewServer(c)
		t.Cleanup(receiver.Close)
		files := maps.Clone(shop)
		files["shoal.work"] = "fleet: test\nrepos: [./inventory, ./orders, ./payments, ./web]\naccess: [orders]\ntraces: {otlp: " + receiver.URL + "}\n"
		w := newWorld(t, s, files)
		w.up()

		inner := q("/get", "url", w.url("orders", "stock", "/"))
		w.traceOf(http.MethodGet, "web", q("/get", "url", w.url("web", "orders", inner)), "", callTrace, rootSpan)
		w.eventually("the call's trace is whole", func() bool {
			return slices.Equal(c.ways(callTrace, rootSpan), []string{"gateway server, web server, web client, orders server, orders client, inventory server"})
		})
		w.traceOf(http.MethodPost, "orders", q("/send", "url", w.eventsURL("orders")+"/orders.placed"), "order 7", eventTrace, rootSpan)
		w.eventually("the event's trace is whole", func() bool {
			return slices.Contains(c.ways(eventTrace, rootSpan),
				"gateway server, orders server, orders client, events server, events producer, events consumer, events client, payments server")
		})
		w.explainedTrace()
		w.accessed()
		w.observedAnew(files["shoal.work"], receiver.URL)
	})
}

// observedAnew: what shoal.work says of traces and access records takes effect when it is saved.
func (w *world) observedAnew(before, old string) {
	w.Helper()
	c := new(collector)
	receiver := httptest.NewServer(c)
	w.Cleanup(receiver.Close)
	w.write("shoal.work", strings.NewReplacer(old, receiver.URL+", sample: 0", "[orders]", "[web]").Replace(before))
	const trace = "00000000000000000000000000000007"
	w.eventually("the new collector has a trace, and the access log what it had not before", func() bool {
		w.traceOf(http.MethodGet, "web", "/", "", trace, rootSpan) // sampled by who asks
		return len(c.ways(trace, rootSpan)) > 0 && strings.Contains(w.run("logs", "--access"), trace)
	})
	w.expect("web", "/", "web")
	w.eventually("a trace that begins here is not sampled", func() bool {
		for line := range strings.Lines(w.run("logs", "--access")) {
			var o fleet.Observation
			must(w, json.Unmarshal([]byte(line), &o))
			if o.Callee == "web" && o.ParentID == (fleet.SpanID{}) {
				return !o.Sampled
			}
		}
		return false
	})
}

// explainedTrace: `why` finds every hop of a trace.
func (w *world) explainedTrace() {
	w.Helper()
	why := w.run("why", callTrace)
	for _, part := range []string{"web called orders", "orders called inventory", "orders/shoal.yaml:", "calls inventory", "trace " + callTrace} {
		if !strings.Contains(why, part) {
			w.Errorf("why lacks %q:\n%s", part, why)
		}
	}
}

// accessed: the access log has the calls of the service that shoal.work names, and no others.
func (w *world) accessed() {
	w.Helper()
	w.eventually("the access log has both calls of the trace", func() bool {
		var edges []string
		for line := range strings.Lines(w.run("logs", "--access")) {
			var o fleet.Observation
			must(w, json.Unmarshal([]byte(line), &o))
			if o.Caller != "orders" && o.Callee != "orders" {
				w.Fatalf("a call of others: %s", line)
			}
			if o.TraceID.String() == callTrace {
				edges = append(edges, o.Caller+" "+o.Callee)
			}
		}
		slices.Sort(edges)
		return slices.Equal(edges, []string{"orders inventory", "web orders"})
	})
}

// deliveries returns the spans of a message's deliveries to a subscription, in order of time.
func (c *collector) deliveries(subscription, trace string) (all []traced) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		for _, a := range s.Attributes {
			if a.Key == "messaging.destination.subscription.name" && a.Value.GetStringValue() == subscription && hex.EncodeToString(s.TraceId) == trace {
				all = append(all, s)
			}
		}
	}
	slices.SortFunc(all, func(x, y traced) int { return cmp.Compare(x.StartTimeUnixNano, y.StartTimeUnixNano) })
	return all
}

// linked reports whether each span links to the one before it.
func linked(all []traced) bool {
	for i, s := range all {
		if i == 0 && len(s.Links) != 0 || i > 0 && (len(s.Links) != 1 || string(s.Links[0].SpanId) != string(all[i-1].SpanId)) {
			return false
		}
	}
	return true
}

// A retry links to the attempt before it, a redriven message to its last delivery, and a message that is pulled is a part of the trace, too.
func TestTracesOfDeliveries(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		c := new(collector)
		receiver := httptest.NewServer(c)
		t.Cleanup(receiver.Close)
		files := maps.Clone(topicShop)
		files["vault/shoal.yaml"] = strings.ReplaceAll(natsShop["mailer/shoal.yaml"], "mailer", "vault")
		files["shoal.work"] = "fleet: test\nrepos: [./orders, ./mailer, ./audit, ./vault]\ntraces: {otlp: " + receiver.URL + "}\n"
		w := newWorld(t, s, files)
		w.up()
		w.post("mailer", "/mood?refuse")
		w.traceOf(http.MethodPost, "orders", q("/send", "url", w.eventsURL("orders")+"/orders.placed"), "order 7", eventTrace, rootSpan)
		w.eventually("it is a dead letter", func() bool { return strings.Contains(w.run("dlq", "list"), "mailer/orders.placed:0") })
		w.post("mailer", "/mood")
		w.run("dlq", "redrive", "mailer/orders.placed", "--yes")
		w.says("vault", q("/nats/receive", "topic", "orders.placed"), "order 7")
		var pushes, pulls []traced
		if !eventually(func() bool {
			pushes, pulls = c.deliveries("mailer/orders.placed", eventTrace), c.deliveries("vault/orders.placed", eventTrace)
			return len(pushes) == 3 && len(pulls) == 1
		}) {
			t.Fatalf("%d pushes and %d pulls are traced", len(pushes), len(pulls))
		}
		if !linked(pushes) {
			t.Errorf("the pushes are not linked: %v", pushes)
		}
		for _, s := range append(pushes, pulls...) {
			if s.Kind != tracepb.Span_SPAN_KIND_CONSUMER || s.Name != "deliver orders.placed" || string(s.ParentSpanId) != string(pulls[0].ParentSpanId) {
				t.Errorf("%v", s)
			}
		}
	})
}
