package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// want compares text, and shows both whole where they differ.
func want(t *testing.T, got, want string) {
	t.Helper()
	if strings.TrimPrefix(want, "\n") != got {
		t.Errorf("got\n%s\nwant%s", got, want)
	}
}

func TestStatusLines(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	a := newApp(Config{Stdout: &strings.Builder{}, Args: []string{}})
	a.now = func() time.Time { return now }
	st := fleet.Status{
		Fleet: "shop", Gateway: "127.0.0.1:8000", Metrics: "127.0.0.1:9464",
		Hub: fleet.ProcessStatus{Down: true}, Node: fleet.ProcessStatus{Started: now.Add(-5 * time.Minute)},
		Services: []fleet.ServiceStatus{
			{Name: "orders", State: fleet.ServiceReady, Origin: fleet.Edit, Release: "1f3c9a", Dirty: true, Mode: fleet.Netns, Debug: true, Instances: []fleet.InstanceStatus{
				{State: fleet.Ready, Restarts: 2}, {State: fleet.Starting},
			}},
			{Name: "search", State: fleet.ServiceExternal, Origin: fleet.External, Source: "localhost:9200"},
			{Name: "web", State: fleet.ServiceFailed, Origin: fleet.Pin, Release: "77aa01", URL: "http://web.localhost:8000", Instances: []fleet.InstanceStatus{
				{Instance: "web-77aa01-1", State: fleet.Failed, Failure: "exited with code 1\x1b[2J: no such file"},
			}},
		},
		Edges: []fleet.EdgeStats{
			{From: "gateway", To: "web", Route: "default", Protocol: fleet.HTTP, Requests: 120, Errors: 3, P50: 1234 * time.Microsecond, P99: 81 * time.Millisecond},
			{From: "web", To: "orders", Route: "default", Protocol: fleet.GRPC, Requests: 7, P50: 840 * time.Microsecond, P99: 3200 * time.Millisecond},
		},
		Subscriptions: []fleet.SubscriptionStatus{
			{Name: "orders/payments.settled", Service: "orders", Topic: "payments.settled", Lag: 2, Delivered: 40, Failed: 3, DeadLetters: 1, LastError: "orders answered 500"},
			{Name: "web/orders.placed", Service: "web", Topic: "orders.placed", Delivered: 7, Paused: "web answered 503", PausedSince: now.Add(-time.Minute), NextTry: now.Add(20 * time.Second)},
		},
	}
	want(t, strings.Join(a.statusLines(st), "\n"), `
shop  up 5m  gateway http://127.0.0.1:8000  metrics http://127.0.0.1:9464/metrics  the hub is down: calls go on, changes wait

SERVICE  STATE          ORIGIN    RELEASE         MODE   INSTANCES  RESTARTS  URL
orders   ready (debug)  edit      1f3c9a+dirty    netns  1/2        2
search   external       external  localhost:9200
web      failed         pin       77aa01                 0/1        0         http://web.localhost:8000
  web-77aa01-1: exited with code 1: no such file

FROM     TO      ROUTE    PROTOCOL  REQUESTS  ERRORS  P50    P99
gateway  web     default  http      120       3       1.2ms  81ms
web      orders  default  grpc      7         0       840µs  3.2s

SUBSCRIBER  TOPIC             LAG  DELIVERED  FAILED  DEAD LETTERS
orders      payments.settled  2    40         3       1
  the last error: orders answered 500
  `+"`shoal dlq list orders/payments.settled` shows its 1 dead letter"+`
web         orders.placed     0    7          0       0
  paused for 60s, the next try in 20s: web answered 503`)
	want(t, strings.Join(a.statusLines(fleet.Status{Fleet: "shop"}), "\n"), `
shop

no service runs; `+"`shoal up`"+` starts them`)
}

func TestTapLines(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 4, 5, 123e6, time.Local)
	o := fleet.Observation{Kind: fleet.KindCall, RequestID: "01A", Time: at, Duration: 1234 * time.Microsecond, Caller: "orders", Callee: "inventory", Protocol: fleet.HTTP, Method: "GET", Path: "/items", Status: 200}
	refused := o
	refused.Status, refused.Reason = 403, string(fleet.ReasonUndeclaredCall)
	retried := o
	retried.Attempts = make([]fleet.Attempt, 2)
	reset := o
	reset.Status, reset.Reason = 0, string(fleet.ReasonUpstreamReset)
	stream := fleet.Observation{Kind: fleet.KindStream, RequestID: "01B", Time: at, Duration: time.Second, Caller: "orders", Callee: "orders.db", Protocol: fleet.TCP}
	event := fleet.Observation{Kind: fleet.KindDelivery, RequestID: "01C", Time: at, Duration: time.Millisecond, Caller: "events", Callee: "orders", Protocol: fleet.HTTP, Topic: "payments.settled", Method: "POST", Path: "/settled", Status: 204}
	rpc := fleet.Observation{Kind: fleet.KindCall, RequestID: "01D", Time: at, Duration: time.Millisecond, Caller: "web", Callee: "inventory", Protocol: fleet.GRPC, Method: "POST", Path: "/inv.Inv/Get", GRPCStatus: 5}
	learned := o
	learned.Learned = &fleet.Learned{}
	var lines []string
	for _, o := range []fleet.Observation{o, refused, retried, reset, stream, event, rpc, learned} {
		lines = append(lines, tapLine(style{}, &o))
	}
	want(t, strings.Join(lines, "\n"), `
12:04:05.123  orders -> inventory  GET /items  200  1.2ms  01A
12:04:05.123  orders -> inventory  GET /items  403 undeclared-call  1.2ms  01A
12:04:05.123  orders -> inventory  GET /items  200 (2 attempts)  1.2ms  01A
12:04:05.123  orders -> inventory  GET /items  upstream-reset  1.2ms  01A
12:04:05.123  orders -> orders.db  stream  done  1s  01B
12:04:05.123  events -> orders  delivery payments.settled POST /settled  204  1ms  01C
12:04:05.123  web -> inventory  POST /inv.Inv/Get  gRPC status 5  1ms  01D
12:04:05.123  orders -> inventory  GET /items  200 learned  1.2ms  01A`)
}

func TestEveryReasonHasAMeaning(t *testing.T) {
	source, err := os.ReadFile("../fleet/observation.go")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`Reason = "([^"]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(all) < 19 {
		t.Fatalf("only %d reasons are found in package fleet", len(all))
	}
	for _, match := range all {
		reason := match[1]
		o := &fleet.Observation{Caller: "a", Callee: "b", Reason: reason}
		if meaning(o) == "see the reason" {
			t.Errorf("`why` has no words for %s", reason)
		}
	}
}

func TestGraphCarriesLiveNumbers(t *testing.T) {
	g := newGraph([]*fleet.Manifest{
		{Service: "web", Calls: []fleet.Call{{Service: "orders"}}, Expose: []fleet.Expose{{Host: "web.localhost", Path: "/"}}},
		{Service: "orders", Egress: []fleet.HostPort{{Host: "api.stripe.com", Port: 443}}},
	}, []fleet.EdgeStats{{From: "web", To: "orders", Requests: 1, Errors: 1, P99: 12 * time.Millisecond}})
	want(t, g.text(), `
gateway
  --> web (web.localhost)
orders
  --> api.stripe.com:443
web
  --> orders  1 request, 1 error, p99 12ms
`)
}

func TestALogIsBounded(t *testing.T) {
	path := t.TempDir() + "/hub.log"
	l := newBoundedLog(path, 100)
	l.redirect = nil
	for range 50 {
		if _, err := l.Write([]byte("ten bytes\n")); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{path, path + ".1"} {
		if n := sizeOfFile(file); n == 0 || n > 100 {
			t.Errorf("%s has %d bytes; want 1 to 100", file, n)
		}
	}
}

func TestRouteLines(t *testing.T) {
	st := fleet.Status{
		Services: []fleet.ServiceStatus{
			{Name: "orders", Ports: []fleet.Port{{Number: 8080}}, Rate: &fleet.Rate{Limit: 500, Per: fleet.Duration(time.Second), Burst: 1000}, Routes: []fleet.Route{
				{Name: "beta", Match: fleet.Match{Headers: []fleet.HeaderMatch{{Name: "x-beta", Value: "1"}, {Name: "x-debug"}}}, Timeout: fleet.Duration(2 * time.Second),
					Split: []fleet.Share{{Service: "orders-next", Weight: 1}}},
				{Name: "canary", Match: fleet.Match{Path: "/v2/*", Methods: []string{"GET", "HEAD"}}, Sticky: fleet.Sticky{Cookie: "session"},
					Split: []fleet.Share{{Service: "orders", Weight: 2}, {Service: "orders-next", Weight: 1}}, Mirror: &fleet.Mirror{Service: "audit", Percent: 0.5}},
			}},
			{Name: "mailer"},
			{Name: "web", Ports: []fleet.Port{{Number: 8080}}},
		},
		Edges: []fleet.EdgeStats{
			{From: "web", To: "orders", Route: "canary", Requests: 6, Errors: 1}, {From: "web", To: "orders-next", Route: "orders/canary", Requests: 4},
			{From: "web", To: "orders-next", Route: "canary", Requests: 100}, {From: "gateway", To: "web", Route: "default", Requests: 3},
		},
	}
	lines, err := routeLines(style{}, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	want(t, strings.Join(lines, "\n"), `
SERVICE  ROUTE    MATCH             GOES TO                                                                  TIMEOUT  REQUESTS  ERRORS
orders   beta     x-beta=1 x-debug  orders-next                                                              2s       0         0
orders   canary   GET,HEAD /v2/*    orders 66.7%, orders-next 33.3% by cookie session; 0.5% copied to audit           10        1
orders   default  every other call  orders (all routes together: 500/s, burst 1000)                                   0         0
web      default  every call        web                                                                               3         0`)
	if _, err := routeLines(style{}, st, []string{"wbe"}); err == nil || !strings.Contains(err.Error(), "no service is called wbe") {
		t.Error(err)
	}
}

func TestFaultIsShown(t *testing.T) {
	o := fleet.Observation{Kind: fleet.KindCall, RequestID: "01F", Caller: "web", Callee: "orders", Protocol: fleet.HTTP, Route: "beta",
		Method: "GET", Path: "/", Status: 503, Reason: string(fleet.ReasonFaultInjected), Fault: "f1: abort 503"}
	got := explain(style{}, &o)
	for _, part := range []string{"It was refused with status 503", "an operator's fault ended it, and nothing is broken (fault-injected)", "An operator's fault met it: f1: abort 503."} {
		if !strings.Contains(got, part) {
			t.Errorf("%q lacks %q", got, part)
		}
	}
	if line := tapLine(style{}, &o); !strings.Contains(line, "by beta  503 (fault f1: abort 503) fault-injected") {
		t.Error(line)
	}
	o.Status, o.Reason, o.Fault = 200, "", "f1: delay 2s"
	if line := tapLine(style{}, &o); !strings.Contains(line, "200 (fault f1: delay 2s)") {
		t.Error(line)
	}
}

func TestCopyIsShown(t *testing.T) {
	o := fleet.Observation{Kind: fleet.KindMirror, RequestID: "01M", Caller: "web", Callee: "orders-next", Protocol: fleet.HTTP, Route: "orders/reads",
		Method: "GET", Path: "/a", Status: 500, Compared: &fleet.Compared{With: "orders", Differences: []string{"status 500 instead of 200", "another body of 8 bytes"}}}
	got := explain(style{}, &o)
	for _, part := range []string{"A copy of a call of web went to orders-next: GET /a", "Its answer differs from that of orders: status 500 instead of 200 and another body of 8 bytes."} {
		if !strings.Contains(got, part) {
			t.Errorf("%q lacks %q", got, part)
		}
	}
	if line := tapLine(style{}, &o); !strings.Contains(line, "copy GET /a  by orders/reads  500 differs") {
		t.Error(line)
	}
	o.Status, o.Compared = 200, &fleet.Compared{With: "orders"}
	if got := explain(style{}, &o); !strings.Contains(got, "Its answer was the same as that of orders.") {
		t.Error(got)
	}
}

// Who refused a publish or a subscription has said what to add: it is not said a second time, nor otherwise.
func TestAdviceIsGivenOnce(t *testing.T) {
	for _, detail := range []string{
		"web may not publish to a.b: web/shoal.yaml does not declare it.\nAdd it to web/shoal.yaml:\n\n    publishes: [a.b]",
		"web may not subscribe to a.b: its manifest does not declare it.\nAdd to web/shoal.yaml:\n\n    subscribes:\n      a.b: pull",
	} {
		o := fleet.Observation{Kind: fleet.KindPublish, Caller: "web", Topic: "a.b", Status: 403, Reason: string(fleet.ReasonUndeclaredTopic), Detail: detail}
		if got := explain(style{}, &o); strings.Count(got, "a.b:")+strings.Count(got, "[a.b]")+strings.Count(got, "- a.b") != 2 {
			t.Error(got)
		}
	}
	o := fleet.Observation{Kind: fleet.KindPublish, Caller: "web", Topic: "a.b", Status: 403, Reason: string(fleet.ReasonUndeclaredTopic)}
	if got := explain(style{}, &o); !strings.Contains(got, "    publishes:\n      - a.b") {
		t.Error(got)
	}
}

func TestSubscriberIsNamed(t *testing.T) {
	a := new(app)
	got := strings.Join(a.subscriptionLines(style{}, []fleet.SubscriptionStatus{
		{Name: "mailer/orders.placed", Service: "mailer", Topic: "orders.placed"},
		{Name: "audit-log", Topic: "orders.placed"}, {Name: "hook", Service: "example.com", Topic: "orders.placed"},
	}), "\n")
	for _, want := range []string{"\nmailer      orders.placed", "\naudit-log   orders.placed", "\nhook        orders.placed"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
}
