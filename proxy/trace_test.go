package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
)

const (
	cameTrace = "0af7651916cd43dd8448eb211c80319c"
	cameSpan  = "b7ad6b7169203331"
	came      = "00-" + cameTrace + "-" + cameSpan + "-01"
)

// telling is an application that notes what it is told of traces.
type telling struct{ heads chan http.Header }

func (a telling) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != "PRI" { // the proxy asks whether it speaks HTTP/2; it does not
		a.heads <- r.Header.Clone()
	}
}

// attachHTTP2 makes h an instance's application, by HTTP/1.1 or by HTTP/2 with prior knowledge.
func (w *world) attachHTTP2(instance string, h http.Handler) {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	w.t.Cleanup(s.Close)
	w.p.Attach(instance, dialTo(s.Listener.Addr().String()))
}

// Whatever a caller says of traces, the application is told one valid traceparent.
func TestTraceContext(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat("a=1,", 33), ",")
	for _, c := range []struct {
		name      string
		sent      http.Header
		continues bool
		flags     string
		state     []string
	}{
		{"none", nil, false, "01", nil},
		{"valid", http.Header{"Traceparent": {came}}, true, "01", nil},
		{"not sampled", http.Header{"Traceparent": {came[:53] + "00"}}, true, "00", nil},
		{"unknown flags are cleared", http.Header{"Traceparent": {came[:53] + "ff"}}, true, "01", nil},
		{"a later version is answered with ours", http.Header{"Traceparent": {"cc" + came[2:] + "-more"}}, true, "01", nil},
		{"with state", http.Header{"Traceparent": {came}, "Tracestate": {"foo=1,bar=2"}}, true, "01", []string{"foo=1,bar=2"}},
		{"state in several fields", http.Header{"Traceparent": {came}, "Tracestate": {"foo=1", "bar=2"}}, true, "01", []string{"foo=1", "bar=2"}},
		{"malformed state", http.Header{"Traceparent": {came}, "Tracestate": {"foo=1=2"}}, true, "01", nil},
		{"one malformed field of two", http.Header{"Traceparent": {came}, "Tracestate": {"foo=1", "BAR"}}, true, "01", nil},
		{"too many members", http.Header{"Traceparent": {came}, "Tracestate": {many}}, true, "01", nil},
		{"malformed", http.Header{"Traceparent": {"00-nonsense"}, "Tracestate": {"foo=1"}}, false, "01", nil},
		{"trace of zeros", http.Header{"Traceparent": {"00-" + strings.Repeat("0", 32) + came[35:]}}, false, "01", nil},
		{"two of them", http.Header{"Traceparent": {came, came}, "Tracestate": {"foo=1"}}, false, "01", nil},
		{"state alone", http.Header{"Tracestate": {"foo=1"}}, false, "01", nil},
	} {
		for _, way := range []struct {
			name        string
			caller, app bool // speak HTTP/2
		}{{"1 to 1", false, false}, {"2 to 2", true, true}, {"2 to 1", true, false}} {
			t.Run(c.name+" from "+way.name, func(t *testing.T) {
				w := newWorld(t, proxy.Config{}, inventory(), orders())
				app := telling{make(chan http.Header, 1)}
				if way.app {
					w.attachHTTP2("inventory-1", app)
				} else {
					w.attach("inventory-1", app)
				}
				r := must(http.NewRequest("GET", "http://"+w.named("inventory", 80)+"/x", nil))
				r.Header = c.sent.Clone()
				if r.Header == nil {
					r.Header = http.Header{}
				}
				w.send(r, way.caller)
				got := <-app.heads
				o := w.observed(got.Get("X-Request-Id"))
				checkTold(t, got, &o, c.flags)
				if continues := o.TraceID.String() == cameTrace; continues != c.continues || continues != (o.ParentID.String() == cameSpan) {
					t.Errorf("trace %v, parent %v", o.TraceID, o.ParentID)
				}
				if kept := o.TraceState; kept != strings.Join(c.state, ",") {
					t.Errorf("the record has tracestate %q", kept)
				}
				if !slices.Equal(got.Values("Tracestate"), c.state) {
					t.Errorf("tracestate %q", got.Values("Tracestate"))
				}
			})
		}
	}
}

// checkTold compares what the application was told with the record.
func checkTold(t *testing.T, got http.Header, o *fleet.Observation, flags string) {
	t.Helper()
	told := got.Values("Traceparent")
	if len(told) != 1 || len(o.Attempts) != 1 {
		t.Fatalf("traceparent %q, %d attempts", told, len(o.Attempts))
	}
	want := "00-" + o.TraceID.String() + "-" + o.Attempts[0].SpanID.String() + "-" + flags
	if told[0] != want {
		t.Errorf("told %s, recorded %s", told[0], want)
	}
	if o.SpanID == (fleet.SpanID{}) || o.SpanID == o.ParentID || o.SpanID == o.Attempts[0].SpanID {
		t.Errorf("spans: parent %v, own %v, callee's %v", o.ParentID, o.SpanID, o.Attempts[0].SpanID)
	}
}

// send sends a request by HTTP/1.1 or by HTTP/2 with prior knowledge.
func (w *world) send(r *http.Request, h2c bool) *http.Response {
	w.t.Helper()
	tr := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!h2c)
	tr.Protocols.SetUnencryptedHTTP2(h2c)
	w.t.Cleanup(tr.CloseIdleConnections)
	res, err := tr.RoundTrip(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res
}

func TestNothingIsSampledWhereNothingShallBe(t *testing.T) {
	w := newWorld(t, proxy.Config{Sampler: observe.NewSampler(0)}, inventory(), orders())
	app := telling{make(chan http.Header, 2)}
	w.attach("inventory-1", app)
	url := "http://" + w.named("inventory", 80)
	w.get(url)
	if got := (<-app.heads).Get("Traceparent"); !strings.HasSuffix(got, "-00") {
		t.Errorf("a trace that begins here: %s", got)
	}
	r := must(http.NewRequest("GET", url, nil))
	r.Header.Set("Traceparent", came)
	w.do(r)
	if got := (<-app.heads).Get("Traceparent"); !strings.HasSuffix(got, "-01") {
		t.Errorf("a trace that came sampled: %s", got)
	}
}

// Each attempt is a span of its own, and the application that answers is told its attempt's.
func TestAttemptsAreSpans(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(instances("a", "b")), orders())
	app := telling{make(chan http.Header, 1)}
	w.p.Attach("a", dialTo("127.0.0.1:1"))
	w.attach("b", app)
	url := "http://" + w.named("inventory", 80)
	for range 100 {
		w.get(url)
		got := <-app.heads
		o := w.observed(got.Get("X-Request-Id"))
		last := o.Attempts[len(o.Attempts)-1]
		if told := got.Get("Traceparent"); !strings.Contains(told, last.SpanID.String()) {
			t.Fatalf("told %s, the last attempt is %v", told, last.SpanID)
		}
		if len(o.Attempts) > 1 {
			if first := o.Attempts[0]; first.SpanID == last.SpanID || !first.Unseen() || last.Unseen() {
				t.Errorf("%+v", o.Attempts)
			}
			return
		}
	}
	t.Error("the instance that is not there was never tried")
}

// Why a call passed is known by the declarations that let it.
func TestPermissionIsRecorded(t *testing.T) {
	allowed := func(s *fleet.Service) {
		s.Manifest.Lines = map[string]int{"allow": 3, "allow[1]": 5}
		s.Manifest.Allow = []fleet.Allow{{Caller: "web"}, {Caller: "orders"}}
	}
	declared := func(s *fleet.Service) { s.Manifest.Lines["calls.inventory"] = 14 }
	w := newWorld(t, proxy.Config{}, inventory(allowed), orders(declared))
	app := telling{make(chan http.Header, 1)}
	w.attach("inventory-1", app)
	w.get("http://" + w.named("inventory", 80))
	o := w.observed((<-app.heads).Get("X-Request-Id"))
	if want := "orders/shoal.yaml:14 calls inventory, inventory/shoal.yaml:5 allows orders"; o.Permission != want {
		t.Errorf("%q", o.Permission)
	}
	if o.InFlight != 1 || o.Limit != 10_000 || o.From != "orders-1" {
		t.Errorf("in flight %d of %d, from %q", o.InFlight, o.Limit, o.From)
	}
	if found := w.recorder.Find(o.TraceID.String()); len(found) != 1 || found[0].RequestID != o.RequestID {
		t.Errorf("by its trace: %+v", found)
	}
}
