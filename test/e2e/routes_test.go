//go:build unix

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// routedShop has web calling orders, which hands a part of its calls over to orders-next.
var routedShop = map[string]string{
	"web/version.txt": "v1",
	"web/shoal.yaml": `service: web
run: APP web
listen: {8080: http}
health: GET /healthz
expose: true
calls: {orders: {}}
`,
	"orders/version.txt": "v1",
	"orders/shoal.yaml":  routedOrders(""),
	"next/version.txt":   "v2",
	"next/shoal.yaml": `service: orders-next
run: APP orders-next
listen: {8080: http}
health: GET /healthz
allow: [web, orders]
`,
}

func routedOrders(more string) string {
	return `service: orders
run: APP orders
listen: {8080: http}
health: GET /healthz
calls: {orders-next: {}}
routes:
  - {name: beta, match: {path: /v2/*}, to: orders-next}
  - {name: half, match: {path: /half}, split: {orders: 50, orders-next: 50}}
  - {name: copied, match: {path: /copied}, mirror: {to: orders-next}}
` + more
}

func TestRoutesAndFaults(t *testing.T) {
	inEach(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, routedShop)
		w.up()
		ask := func(path string) string { return q("/get", "url", w.url("web", "orders", path)) }
		w.expect("web", ask("/"), "orders v1 caller=web")
		w.expect("web", ask("/v2/a"), "orders-next v2 caller=web")
		if out := w.run("routes", "orders"); !strings.Contains(out, "/v2/*") || !strings.Contains(out, "orders 50%, orders-next 50%") {
			t.Errorf("routes:\n%s", out)
		}
		w.expectCopy()
		added := w.run("fault", "add", "web→orders", "--abort", "503", "--path", "/v2/*", "--for", "10m")
		if !strings.HasPrefix(added, "f1: web → orders, abort 503, 100 % of /v2/*") {
			t.Errorf("fault add: %s", added)
		}
		w.expect("web", ask("/"), "orders v1 caller=web")
		status, body, _ := w.get("web", ask("/v2/a"))
		if status != 503 || !strings.Contains(body, "the fault f1 aborted the call") || !strings.Contains(body, "fault-injected") {
			t.Errorf("%d %s", status, body)
		}
		_, after, _ := strings.Cut(body, "shoal why ")
		if why := w.run("why", strings.Fields(after)[0]); !strings.Contains(why, "An operator's fault met it: f1: abort 503") || !strings.Contains(why, "nothing is broken") {
			t.Errorf("why:\n%s", why)
		}
		for _, verb := range [][]string{{"status"}, {"fault", "list"}} {
			if out := w.run(verb...); !strings.Contains(out, "f1") || !strings.Contains(out, "abort 503") {
				t.Errorf("%v:\n%s", verb, out)
			}
		}
		w.run("fault", "rm", "f1")
		w.expect("web", ask("/v2/a"), "orders-next v2 caller=web")
		w.run("fault", "add", "*", "orders", "--abort", "500", "--for", "1s")
		w.eventually("the fault ends by itself", func() bool { status, _, _ := w.get("web", ask("/")); return status == 200 })
		if out := w.run("fault", "rm", "--all"); !strings.Contains(out, "no fault was active") {
			t.Errorf("fault rm --all: %s", out)
		}
		for want, args := range map[string][]string{
			`no service is called "ordrs"`: {"web→ordrs", "--abort", "503"},
			`no caller is called "wbe"`:    {"wbe->orders", "--abort", "503"},
			"the fault does nothing":       {"web→orders"},
			"from 400 to 599":              {"web→orders", "--abort", "200"},
			"may last 24h0m0s":             {"web→orders", "--abort", "503", "--for", "25h"},
			"a shell takes `>` for itself": {"web-", "--abort", "503"},
			`"SOON" is no failure of gRPC`: {"web→orders", "--grpc", "SOON"},
			"more than 0 and at most 100":  {"web→orders", "--delay", "1s", "--percent", "200"},
			"does not begin with a slash":  {"web→orders", "--delay", "1s", "--path", "v2"},
			"would end before it begins":   {"web→orders", "--delay", "1s", "--for", "0s"},
		} {
			if _, errs, code := w.try(append([]string{"fault", "add"}, args...)...); code == 0 || !strings.Contains(errs, want) {
				t.Errorf("%v: %d %s; want %q", args, code, errs, want)
			}
		}
	})
}

// expectCopy makes a call that is copied: the caller has its own answer, and `why` tells of both.
func (w *world) expectCopy() {
	w.Helper()
	const id = "01COPIED"
	out := w.run("call", "--from", "web", "-H", "X-Request-Id: "+id, "http://orders/copied")
	if !strings.Contains(out, "orders v1 caller=web") {
		w.Errorf("call: %s", out)
	}
	why := ""
	told := eventually(func() bool {
		why, _, _ = w.try("why", id)
		return strings.Contains(why, "web called orders: GET /copied") && strings.Contains(why, "by the route `copied`") &&
			strings.Contains(why, "A copy of a call of web went to orders-next: GET /copied") && strings.Contains(why, "Its answer differs from that of orders: a body of")
	})
	if !told {
		w.Errorf("why does not tell of the copy:\n%s", why)
	}
}

// Routes, rates and faults change under constant load: not one call fails.
func TestTrafficChangesUnderLoad(t *testing.T) {
	s := settings()[0]
	w := newWorld(t, s, routedShop)
	w.up()
	l := w.startLoad("web", q("/get", "url", w.url("web", "orders", "/half")))
	for i, more := range []string{
		"  - {name: all, to: orders-next}\n",
		"  - {name: own, timeout: 30s}\nrate: 100000/s\n",
		"",
	} {
		w.run("fault", "add", "web", "orders", "--delay", "5ms", "--percent", "50", "--for", "10m")
		was := w.service("orders").Release
		w.write("orders/shoal.yaml", routedOrders(more))
		w.eventually(fmt.Sprintf("change %d is in force", i), func() bool {
			v := w.service("orders")
			return v.State == "ready" && v.Release != was && len(v.Routes) == 3+strings.Count(more, "name:")
		})
		w.run("fault", "rm", "--all")
	}
	l.end(w)
	if n := w.status(); len(n.Faults) != 0 {
		t.Errorf("faults are left: %+v", n.Faults)
	}
}

// A provider lets a new version of itself, which is a service of its own, answer a part of its calls: by weight, which
// changes when the manifest is saved, while no call fails.
func TestWeightedSplit(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		payments := func(split string) string {
			return `service: payments
run: APP payments
listen: {8080: http}
health: GET /healthz
calls: {payments-v2: {}}
routes: [{name: trial, split: {` + split + `}}]
`
		}
		w := newWorld(t, s, map[string]string{
			"web/version.txt": "v1", "payments/version.txt": "v1", "next/version.txt": "v2",
			"web/shoal.yaml":      strings.Replace(routedShop["web/shoal.yaml"], "orders", "payments", 1),
			"payments/shoal.yaml": payments("payments: 80, payments-v2: 20"),
			"next/shoal.yaml": `service: payments-v2
run: APP payments-v2
listen: {8080: http}
health: GET /healthz
allow: [web, payments]
`,
		})
		w.up()
		path := q("/get", "url", w.url("web", "payments", "/"))
		of200 := func() (next int) {
			for range 200 {
				status, body, _ := w.get("web", path)
				if status != 200 || !strings.Contains(body, "caller=web") {
					t.Fatalf("%d %s", status, body)
				}
				if strings.Contains(body, "payments-v2 v2") {
					next++
				}
			}
			return next
		}
		if next := of200(); next < 6 || next > 74 { // six standard deviations around 40
			t.Errorf("payments-v2 answered %d of 200 calls, and has 20 of 100 parts", next)
		}
		l := w.startLoad("web", path)
		w.write("payments/shoal.yaml", payments("payments: 0, payments-v2: 100"))
		w.eventually("all goes to payments-v2", func() bool { return of200() == 200 })
		w.write("payments/shoal.yaml", payments("payments: 100, payments-v2: 0"))
		w.eventually("all is back", func() bool { return of200() == 0 })
		l.end(w)
	})
}
