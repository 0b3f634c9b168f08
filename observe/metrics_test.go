package observe_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	return ctx, stop
}

func scrape(t *testing.T, r *observe.Recorder, accept string, beside ...*observe.Beside) *http.Response {
	t.Helper()
	req := httptest.NewRequest("GET", "/metrics", nil)
	req.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	r.Handler("node", beside...).ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		t.Errorf("the scrape answered %d: %s", w.Code, w.Body)
	}
	return w.Result()
}

func TestMetricsAsText(t *testing.T) {
	r := observe.New(observe.Config{})
	e := r.Edge("web", "orders", "default", fleet.HTTP)
	e.Done(2*time.Millisecond, false)
	e.Done(3*time.Second, true)
	r.Edge("web", "catalog", "default", fleet.HTTP)
	text, err := io.ReadAll(scrape(t, r, "text/plain").Body)
	if err != nil {
		t.Fatal(err)
	}
	labels := `{caller="web",callee="orders",process="node",protocol="http",route="default"`
	for _, want := range []string{
		"shoal_requests_total" + labels + "} 2",
		"shoal_request_errors_total" + labels + "} 1",
		`shoal_requests_total{caller="web",callee="catalog",process="node",protocol="http",route="default"} 0`,
		"shoal_request_duration_seconds_bucket" + labels + `,le="0.001"} 0`,
		"shoal_request_duration_seconds_bucket" + labels + `,le="0.0025"} 1`,
		"shoal_request_duration_seconds_bucket" + labels + `,le="5"} 2`,
		"shoal_request_duration_seconds_bucket" + labels + `,le="+Inf"} 2`,
		"shoal_request_duration_seconds_sum" + labels + "} 3.002",
		"shoal_request_duration_seconds_count" + labels + "} 2",
		`go_goroutines{process="node"} `,
	} {
		if !strings.Contains(normal(string(text)), want) {
			t.Errorf("the exposition lacks %q", want)
		}
	}
}

// normal puts the labels caller and callee in the order of this test's expectations.
func normal(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if callee, rest, ok := strings.Cut(line, `",caller="`); ok {
			name, callee, _ := strings.Cut(callee, `{callee="`)
			caller, rest, _ := strings.Cut(rest, `"`)
			line = name + `{caller="` + caller + `",callee="` + callee + `"` + rest
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestMetricsAsNativeHistogram(t *testing.T) {
	r := observe.New(observe.Config{})
	e := r.Edge("web", "orders", "default", fleet.HTTP)
	for range 100 {
		e.Done(8200*time.Microsecond, false)
	}
	h := histogram(t, r)
	if h.GetSchema() != 3 || len(h.GetPositiveSpan()) != 1 || h.GetSampleCount() != 100 {
		t.Fatalf("not a native histogram of 100 samples in one bucket: %v", h)
	}
	// Bucket i of schema 3 ends at 2^(i/8) seconds: 2^(-55/8) = 8.5 ms, and the one before at 7.8 ms.
	if i := h.GetPositiveSpan()[0].GetOffset(); i != -55 {
		t.Errorf("8.2 ms are in bucket %d", i)
	}
	if n := len(h.GetBucket()); n != 18 {
		t.Errorf("%d classic buckets beside the native ones", n)
	}
}

func histogram(t *testing.T, r *observe.Recorder) *dto.Histogram {
	t.Helper()
	format := expfmt.NewFormat(expfmt.TypeProtoDelim)
	decoder := expfmt.NewDecoder(scrape(t, r, string(format)).Body, format)
	for {
		var f dto.MetricFamily
		if err := decoder.Decode(&f); err != nil {
			t.Fatal("no shoal_request_duration_seconds:", err)
		}
		if f.GetName() == "shoal_request_duration_seconds" {
			return f.GetMetric()[0].GetHistogram()
		}
	}
}

// A bucket leads to a trace.
func TestExemplars(t *testing.T) {
	r := observe.New(observe.Config{})
	e := r.Edge("web", "orders", "default", fleet.HTTP)
	for i, took := range []time.Duration{3 * time.Millisecond, 4 * time.Millisecond, 2 * time.Second} {
		o := observation("1")
		o.Time, o.Duration, o.Sampled, o.TraceID = time.Unix(int64(100+i), 0), took, true, fleet.TraceID{byte(i + 1)}
		e.Done(took, false)
		r.Record(o)
	}
	unsampled := observation("2")
	unsampled.Duration, unsampled.TraceID = 30*time.Millisecond, fleet.TraceID{9}
	e.Done(unsampled.Duration, false)
	r.Record(unsampled)
	got := map[string]float64{}
	for _, b := range histogram(t, r).GetBucket() {
		if x := b.GetExemplar(); x != nil {
			got[x.GetLabel()[0].GetName()+" "+x.GetLabel()[0].GetValue()[:2]] = b.GetUpperBound()
		}
	}
	if len(got) != 2 || got["trace_id 02"] != 0.005 || got["trace_id 03"] != 2.5 {
		t.Errorf("exemplars by bucket: %v", got)
	}
	if n := len(histogram(t, r).GetExemplars()); n != 2 {
		t.Errorf("%d exemplars of the native histogram", n)
	}
	text, err := io.ReadAll(scrape(t, r, "application/openmetrics-text; version=1.0.0").Body)
	if err != nil || !strings.Contains(string(text), `# {trace_id="02`) {
		t.Errorf("OpenMetrics without exemplars: %v", err)
	}
}

// Made-up names do not fill the memory.
func TestEdgesAreBounded(t *testing.T) {
	r := observe.New(observe.Config{})
	for i := range 6000 {
		r.Edge("web", fmt.Sprint("host-", i), "default", fleet.TCP)
	}
	e := r.Edge("web", "one-more", "default", fleet.TCP)
	e.Done(time.Millisecond, false)
	if e != r.Edge("web", "another", "default", fleet.TCP) || e.Stats().From != "others" {
		t.Errorf("%+v", e.Stats())
	}
}

// What Prometheus's own linter says of the exposition: nothing.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is missing: Debian's package prometheus has it")
	}
	r := observe.New(observe.Config{})
	r.Edge("web", "orders", "default", fleet.HTTP).Done(time.Millisecond, false)
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = scrape(t, r, "text/plain").Body
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// One scrape has the metrics of both processes of a machine, in the form that is asked for; one that is not there is
// missed, and that is told.
func TestMetricsOfTheProcessBeside(t *testing.T) {
	node, hub := observe.New(observe.Config{}), observe.New(observe.Config{})
	node.Edge("web", "orders", "default", fleet.HTTP).Done(time.Millisecond, false)
	hub.Edge("events", "orders", "default", fleet.HTTP).Done(2*time.Millisecond, false)
	server := httptest.NewServer(hub.Handler("hub"))
	defer server.Close()
	beside := observe.NewBeside("hub", server.Client(), server.URL)

	text, _ := io.ReadAll(scrape(t, node, "text/plain", beside).Body)
	for _, want := range []string{
		`shoal_requests_total{caller="web",callee="orders",process="node",`, `shoal_requests_total{caller="events",callee="orders",process="hub",`,
		`go_goroutines{process="hub"}`, `process_open_fds{process="node"}`, `shoal_process_up{process="hub"} 1`,
	} {
		if !strings.Contains(normal(string(text)), want) {
			t.Errorf("the exposition lacks %q", want)
		}
	}
	format := expfmt.NewFormat(expfmt.TypeProtoDelim)
	native := map[string]bool{}
	for d := expfmt.NewDecoder(scrape(t, node, string(format), beside).Body, format); ; {
		var f dto.MetricFamily
		if err := d.Decode(&f); err != nil {
			break
		}
		for _, m := range f.Metric {
			if f.GetName() == "shoal_request_duration_seconds" && len(m.GetHistogram().GetPositiveDelta()) > 0 {
				native[m.Label[2].GetValue()] = true
			}
		}
	}
	if !native["node"] || !native["hub"] {
		t.Errorf("native histograms of %v", native)
	}
	server.Close()
	text, _ = io.ReadAll(scrape(t, node, "text/plain", beside).Body)
	if s := string(text); strings.Contains(s, `caller="events"`) || !strings.Contains(s, `shoal_process_up{process="hub"} 0`) || !strings.Contains(s, `caller="web"`) {
		t.Errorf("with the hub gone: %.3000s", s)
	}
}

// What operators alert on is there for each topic and subscription.
func TestMetricsOfTopics(t *testing.T) {
	r := observe.New(observe.Config{Broker: func() fleet.BrokerStatus {
		return fleet.BrokerStatus{Scheduled: 4, NextDue: time.Now().Add(-time.Hour),
			Topics: []fleet.TopicStatus{{Name: "orders.placed", Published: 9, Known: 2, Retained: 7, Bytes: 512, Stopped: "the disk is full"}, {Name: "quiet"}},
			Subscriptions: []fleet.SubscriptionStatus{
				{Name: "mailer/orders.placed", Lag: 5, Oldest: time.Now().Add(-time.Hour), InFlight: 2, Retrying: 1, Attempts: 7, Delivered: 4, Failed: 3, Expired: 1, DeadLetters: 6, GivenUp: 9,
					Lost: 8, Paused: "it fails", Stuck: "key k", StuckKeys: 3, Concurrency: 16},
				{Name: "idle/orders.placed"},
			}}
	}})
	r.Committed(fleet.DurabilityDisk, 3, 700*time.Microsecond)
	r.Acknowledged("mailer/orders.placed", 2*time.Millisecond)
	r.Acknowledged("gone/orders.placed", time.Second)
	body, err := io.ReadAll(scrape(t, r, "text/plain").Body)
	if err != nil {
		t.Fatal(err)
	}
	text := normal(string(body))
	topic, sub := `{process="node",topic="orders.placed"} `, `{process="node",subscription="mailer/orders.placed"} `
	for _, want := range []string{
		"shoal_topic_messages_published_total" + topic + "9", "shoal_topic_messages_retained" + topic + "7", "shoal_topic_retained_bytes" + topic + "512", "shoal_topic_stopped" + topic + "1",
		`shoal_topic_stopped{process="node",topic="quiet"} 0`,
		"shoal_subscription_undelivered_messages" + sub + "5", "shoal_subscription_oldest_unacked_message_age_seconds" + sub + "360",
		"shoal_subscription_in_flight_messages" + sub + "2", "shoal_subscription_retrying_messages" + sub + "1", "shoal_subscription_paused" + sub + "1", "shoal_subscription_stuck_ordering_keys" + sub + "3",
		"shoal_topic_duplicate_events_total" + topic + "2", "shoal_subscription_push_concurrency" + sub + "16", "shoal_subscription_delivery_attempts_total" + sub + "7",
		"shoal_subscription_expired_ack_deadlines_total" + sub + "1", "shoal_subscription_messages_dead_lettered_total" + sub + "9",
		`shoal_scheduled_messages{process="node"} 4`, `shoal_scheduled_overdue_seconds{process="node"} 360`,
		`shoal_commit_messages_sum{durability="disk",process="node"} 3`, `shoal_commit_duration_seconds_bucket{durability="disk",process="node",le="0.0008"} 1`,
		`shoal_commit_duration_seconds_bucket{durability="disk",process="node",le="0.0004"} 0`, "shoal_subscription_ack_latency_seconds_count" + sub + "1",
		"shoal_subscription_messages_delivered_total" + sub + "4", "shoal_subscription_delivery_failures_total" + sub + "3", "shoal_subscription_dead_letters" + sub + "6", "shoal_subscription_messages_lost_total" + sub + "8",
		`shoal_subscription_oldest_unacked_message_age_seconds{process="node",subscription="idle/orders.placed"} 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the exposition lacks %q", want)
		}
	}
	if strings.Contains(text, "gone/orders.placed") {
		t.Error("a subscription that is no more is measured")
	}
}
