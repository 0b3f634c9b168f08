package otlp_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/observe/otlp"
)

// collector is a receiver of OTLP by both transports, whose messages are the official ones.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	answer func(n int) (*collectorpb.ExportTraceServiceResponse, int) // the nth message, by an HTTP status

	mu      sync.Mutex
	n       int
	spans   map[string]seen // by service, kind and instance
	headers []string        // values of the field api-key
	gzipped bool

	messages []*collectorpb.ExportTraceServiceRequest
}

type seen struct {
	*tracepb.Span
	resource map[string]string
}

func (c *collector) take(m *collectorpb.ExportTraceServiceRequest, header string) (*collectorpb.ExportTraceServiceResponse, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	c.headers, c.messages = append(c.headers, header), append(c.messages, m)
	if c.answer != nil {
		if res, code := c.answer(c.n); code != http.StatusOK {
			return res, code
		}
	}
	if c.spans == nil {
		c.spans = map[string]seen{}
	}
	for _, r := range m.ResourceSpans {
		of := attributes(r.Resource.Attributes)
		for _, scope := range r.ScopeSpans {
			for _, s := range scope.Spans {
				key := of["service.name"] + " " + strings.ToLower(strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_")) + " " + of["service.instance.id"]
				c.spans[strings.TrimSpace(key)] = seen{s, of}
			}
		}
	}
	if c.answer != nil {
		return c.answer(c.n)
	}
	return &collectorpb.ExportTraceServiceResponse{}, http.StatusOK
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		c.mu.Lock()
		c.gzipped = true
		c.mu.Unlock()
		body, _ = gzip.NewReader(r.Body)
	}
	data, err := io.ReadAll(body)
	m := &collectorpb.ExportTraceServiceRequest{}
	if err != nil || r.Method != "POST" || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(data, m) != nil {
		http.Error(w, "that is no OTLP", http.StatusBadRequest)
		return
	}
	res, code := c.take(m, r.Header.Get("Api-Key"))
	if code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "0")
	}
	w.WriteHeader(code)
	out, _ := proto.Marshal(res)
	_, _ = w.Write(out)
}

func (c *collector) Export(ctx context.Context, m *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	header := ""
	if md, _ := metadata.FromIncomingContext(ctx); len(md.Get("api-key")) > 0 {
		header = md.Get("api-key")[0]
	}
	if md, _ := metadata.FromIncomingContext(ctx); slices.Contains(md.Get("grpc-accept-encoding"), "gzip") {
		c.mu.Lock()
		c.gzipped = true
		c.mu.Unlock()
	}
	res, code := c.take(m, header)
	switch code {
	case http.StatusOK:
		return res, nil
	case http.StatusTooManyRequests:
		return nil, status.Error(codes.Unavailable, "later")
	}
	return nil, status.Error(codes.InvalidArgument, "never")
}

func (c *collector) serveHTTP(t *testing.T) string {
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	return s.URL
}

func (c *collector) serveGRPC(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(s, c)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return "grpc://" + l.Addr().String()
}

func (c *collector) got() map[string]seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]seen{}
	for k, v := range c.spans {
		out[k] = v
	}
	return out
}

func attributes(all []*commonpb.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range all {
		switch v := a.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			out[a.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			out[a.Key] = fmt.Sprint(v.IntValue)
		}
	}
	return out
}

// transports runs a test by both.
func transports(t *testing.T, f func(t *testing.T, c *collector, url string)) {
	t.Run("http", func(t *testing.T) { c := &collector{}; f(t, c, c.serveHTTP(t)) })
	t.Run("grpc", func(t *testing.T) { c := &collector{}; f(t, c, c.serveGRPC(t)) })
}

// export runs an exporter to an endpoint.
func export(t *testing.T, to otlp.Endpoint) (r *observe.Recorder, stop func()) {
	t.Helper()
	r = observe.New(observe.Config{Ring: 4096})
	e, err := otlp.New(otlp.Config{Recorder: r, Endpoint: to, Fleet: "shop", Node: "local", Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(observe.Keep(t.Context(), e.Run))
	t.Cleanup(stop)
	return r, stop
}

var (
	trace  = fleet.TraceID{1, 2, 3}
	parent = fleet.SpanID{9}
	began  = time.Unix(1700000000, 0)
)

// longState is a tracestate that a record does not hold in its own room.
var longState = "foo=" + strings.Repeat("1", 100)

func call() *fleet.Observation {
	return &fleet.Observation{
		Kind: fleet.KindCall, RequestID: "req-1", Time: began, Duration: 30 * time.Millisecond,
		TraceID: trace, SpanID: fleet.SpanID{1}, ParentID: parent, Sampled: true, TraceState: longState,
		Caller: "web", From: "web-1", Callee: "orders", Protocol: fleet.HTTP, Route: "default", Method: "GET", Path: "/orders/7?token=secret",
		Status: 200, BytesIn: 10, BytesOut: 20, Permission: "web/shoal.yaml:4 calls orders",
		Attempts: []fleet.Attempt{
			{Instance: "orders-1", Duration: 5 * time.Millisecond, Outcome: "connect-failed", SpanID: fleet.SpanID{2}},
			{Instance: "orders-2", Start: 10 * time.Millisecond, Duration: 20 * time.Millisecond, Outcome: "200", SpanID: fleet.SpanID{3}},
		},
	}
}

// until records o again and again until the collector has what is wanted: what was recorded before the exporter
// began to follow is not its.
func until(t *testing.T, r *observe.Recorder, o *fleet.Observation, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		r.Record(o)
		if done() {
			return
		}
	}
	t.Fatal("the spans never came")
}

func TestSpansOfACall(t *testing.T) {
	transports(t, func(t *testing.T, c *collector, url string) {
		r, _ := export(t, otlp.Endpoint{URL: url, Headers: map[string]string{"api-key": "k"}, Gzip: true})
		until(t, r, call(), func() bool { return len(c.got()) >= 2 })
		got := c.got()
		// The failed attempt and the call are both the caller's; the later one in the message stands.
		server := got["orders server orders-2"]
		if server.Span == nil || string(server.TraceId) != string(trace[:]) || server.ParentSpanId[0] != 1 || server.SpanId[0] != 3 {
			t.Fatalf("the callee's span: %v in %v", server.Span, got)
		}
		if server.TraceState != longState {
			t.Errorf("trace state %q", server.TraceState)
		}
		if want := uint64(began.Add(10 * time.Millisecond).UnixNano()); server.StartTimeUnixNano != want || server.EndTimeUnixNano != want+uint64(20*time.Millisecond) {
			t.Errorf("the callee's span from %d to %d", server.StartTimeUnixNano, server.EndTimeUnixNano)
		}
		if server.resource["service.namespace"] != "shop" || server.resource["shoal.node"] != "local" {
			t.Errorf("its resource: %v", server.resource)
		}
		a := attributes(server.Attributes)
		for key, want := range map[string]string{
			"http.request.method": "GET", "url.path": "/orders/7", "http.response.status_code": "200",
			"http.request.resend_count": "1", "shoal.request_id": "req-1", "url.query": "", "error.type": "",
		} {
			if a[key] != want {
				t.Errorf("%s is %q, want %q", key, a[key], want)
			}
		}
		if c.mu.Lock(); c.headers[0] != "k" || !c.gzipped {
			t.Errorf("headers %q, compressed %v", c.headers, c.gzipped)
		}
		c.mu.Unlock()
	})
}

func TestSpansByKind(t *testing.T) {
	for _, c := range []struct {
		name  string
		edit  func(*fleet.Observation)
		span  string // service, kind and instance
		title string
		want  map[string]string
		fails bool
	}{
		{"the caller's half", func(o *fleet.Observation) { o.Attempts = o.Attempts[1:] }, "web client web-1", "GET",
			map[string]string{"server.address": "orders", "shoal.attempts": "1", "shoal.permission": "web/shoal.yaml:4 calls orders", "shoal.route": "default", "http.request.size": "10"}, false},
		{"a declared route names the span", func(o *fleet.Observation) { o.Route, o.Attempts = "v2", nil }, "web client web-1", "GET v2", nil, false},
		{"the gateway serves", func(o *fleet.Observation) { o.Caller, o.From, o.Attempts = fleet.Gateway, "", nil }, "gateway server", "GET", map[string]string{"server.address": ""}, false},
		{"an unknown method", func(o *fleet.Observation) { o.Method, o.Attempts = "BREW", nil }, "web client web-1", "_OTHER", map[string]string{"http.request.method_original": "BREW"}, false},
		{"a refusal", func(o *fleet.Observation) {
			o.Status, o.Reason, o.Detail, o.Attempts = 403, "undeclared-call", "web may not.\nAdd it.", nil
		}, "web client web-1", "GET", map[string]string{"shoal.reason": "undeclared-call", "error.type": "undeclared-call", "http.response.status_code": "403"}, true},
		{"404 is the client's error", func(o *fleet.Observation) { o.Status, o.Attempts = 404, nil }, "web client web-1", "GET", nil, true},
		{"404 is no error of the server", func(o *fleet.Observation) {
			o.Status, o.Attempts = 404, o.Attempts[1:]
			o.Attempts[0].Outcome = "404"
		}, "orders server orders-2", "GET", nil, false},
		{"a hedge that lost is none", func(o *fleet.Observation) { o.Attempts = o.Attempts[1:]; o.Attempts[0].Outcome = "cancelled" }, "orders server orders-2", "GET", map[string]string{"error.type": ""}, false},
		{"503 is one", func(o *fleet.Observation) { o.Attempts = o.Attempts[1:]; o.Attempts[0].Outcome = "503" }, "orders server orders-2", "GET", map[string]string{"error.type": "503"}, true},
		{"an attempt that never reached it is the caller's", func(o *fleet.Observation) { o.Attempts = o.Attempts[:1] }, "web client web-1", "GET",
			map[string]string{"shoal.reason": "connect-failed", "shoal.instance": "orders-1"}, true},
		{"gRPC", func(o *fleet.Observation) {
			o.Protocol, o.Method, o.Path, o.GRPCStatus, o.Attempts = fleet.GRPC, "POST", "/shop.Orders/Get", 5, nil
		}, "web client web-1", "shop.Orders/Get", map[string]string{"rpc.system": "grpc", "rpc.service": "shop.Orders", "rpc.method": "Get", "rpc.grpc.status_code": "5", "error.type": "5"}, true},
		{"gRPC's NOT_FOUND is no error of the server", func(o *fleet.Observation) {
			o.Protocol, o.Method, o.Path, o.GRPCStatus, o.Attempts = fleet.GRPC, "POST", "/shop.Orders/Get", 5, o.Attempts[1:]
		}, "orders server orders-2", "shop.Orders/Get", map[string]string{"rpc.grpc.status_code": "5"}, false},
		{"a publish", func(o *fleet.Observation) {
			o.Kind, o.Callee, o.Topic, o.Event, o.Attempts = fleet.KindPublish, fleet.Events, "orders.placed", "e-1", nil
		}, "events producer", "publish orders.placed", map[string]string{"messaging.system": "shoal", "messaging.destination.name": "orders.placed", "messaging.message.id": "e-1", "messaging.operation.type": "send"}, false},
		{"a delivery", func(o *fleet.Observation) {
			o.Kind, o.Caller, o.From, o.Topic, o.LinkID, o.Attempts = fleet.KindDelivery, fleet.Events, "", "orders.placed", fleet.SpanID{7}, nil
			o.Subscription, o.Delivery = "mailer/orders.placed", 2
		}, "events consumer", "deliver orders.placed", map[string]string{"messaging.destination.subscription.name": "mailer/orders.placed", "messaging.operation.type": "process", "messaging.client.id": "orders", "shoal.delivery_attempt": "2"}, false},
		{"a connection", func(o *fleet.Observation) {
			o.Kind, o.Protocol, o.Method, o.Path, o.Callee, o.Status = fleet.KindEgress, fleet.TCP, "", "", "db.example.com:5432", 0
			o.Attempts = []fleet.Attempt{{Instance: "outside/db.example.com:5432", Outcome: "closed", SpanID: o.SpanID}}
		}, "web client web-1", "tcp", map[string]string{"server.address": "db.example.com:5432", "url.path": ""}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := &collector{}
			r, _ := export(t, otlp.Endpoint{URL: to.serveHTTP(t)})
			o := call()
			c.edit(o)
			until(t, r, o, func() bool { return to.got()[c.span].Span != nil })
			s := to.got()[c.span]
			if s.Name != c.title || (s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR) != c.fails {
				t.Errorf("%q, status %v", s.Name, s.Status)
			}
			a := attributes(s.Attributes)
			for key, want := range c.want {
				if a[key] != want {
					t.Errorf("%s is %q, want %q", key, a[key], want)
				}
			}
			if (o.LinkID != fleet.SpanID{}) != (len(s.Links) == 1) {
				t.Errorf("links %v", s.Links)
			}
		})
	}
}

func TestOnlyWhatIsSampledIsSent(t *testing.T) {
	c := &collector{}
	r, _ := export(t, otlp.Endpoint{URL: c.serveHTTP(t)})
	until(t, r, call(), func() bool {
		other := call()
		other.Caller, other.Sampled = "unsampled", false
		r.Record(other)
		half := call()
		half.Caller, half.SpanID = "half", fleet.SpanID{}
		r.Record(half)
		return len(c.got()) > 0
	})
	for key := range c.got() {
		if strings.HasPrefix(key, "unsampled") || strings.HasPrefix(key, "half") {
			t.Error(key)
		}
	}
}

// What a collector cannot take now is sent again; what it will never take is dropped, and counted.
func TestAnswersOfACollector(t *testing.T) {
	transports(t, func(t *testing.T, c *collector, url string) {
		c.answer = func(n int) (*collectorpb.ExportTraceServiceResponse, int) {
			res := &collectorpb.ExportTraceServiceResponse{}
			switch n {
			case 1:
				return res, http.StatusTooManyRequests
			case 2:
				return res, http.StatusOK
			case 3:
				return res, http.StatusBadRequest
			}
			res.PartialSuccess = &collectorpb.ExportTracePartialSuccess{RejectedSpans: 1}
			return res, http.StatusOK
		}
		r, _ := export(t, otlp.Endpoint{URL: url})
		o := call()
		o.Attempts = nil
		until(t, r, o, func() bool { return len(c.got()) > 0 && r.Spans.Written.Load() > 0 })
		c.mu.Lock()
		if !proto.Equal(c.messages[0], c.messages[1]) {
			t.Error("the message that was to come later did not come again")
		}
		c.mu.Unlock()
		until(t, r, o, func() bool { return r.Spans.Dropped.Load() > 0 })
		refused := r.Spans.Dropped.Load()
		until(t, r, o, func() bool { return r.Spans.Dropped.Load() > refused })
	})
}

// A collector that hangs costs spans, and nobody's time.
func TestSlowCollector(t *testing.T) {
	release := make(chan struct{})
	var asked atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true); <-release }))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(release) })
	r, stop := export(t, otlp.Endpoint{URL: s.URL})
	o := call()
	until(t, r, o, asked.Load)
	until(t, r, o, func() bool {
		for range 4000 {
			r.Record(o)
		}
		return r.Spans.Dropped.Load() > 0
	})
	stop() // ends although the collector holds a request
}

func TestFlushAtTheEnd(t *testing.T) {
	transports(t, func(t *testing.T, c *collector, url string) {
		r, stop := export(t, otlp.Endpoint{URL: url})
		until(t, r, call(), func() bool { return len(c.got()) > 0 })
		last := call()
		last.Caller, last.From = "last", ""
		r.Record(last)
		stop()
		if c.got()["last client"].Span == nil {
			t.Error("the last span was lost")
		}
	})
}
