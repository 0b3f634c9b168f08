//go:build unix

package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// shop is a small fleet: web calls orders, orders calls inventory and publishes; payments subscribes;
// audit is a worker.
var shop = map[string]string{
	"web/version.txt": "v1",
	"web/shoal.yaml": `service: web
run: APP web
listen: {8080: http}
health: GET /healthz
expose: true
calls: {orders: {}}
`,
	"orders/version.txt": "v1",
	"orders/shoal.yaml": `service: orders
run: APP orders
listen: {8080: http}
health: GET /healthz
expose: true
calls:
  inventory: {as: stock, timeout: 2s}
publishes: [orders.placed]
`,
	"inventory/version.txt": "v1",
	"inventory/shoal.yaml": `service: inventory
run: APP inventory
listen: {8080: http}
health: GET /healthz
`,
	"payments/version.txt": "v1",
	"payments/shoal.yaml": `service: payments
run: APP payments
listen: {8080: http}
health: GET /healthz
expose: true
allow: [orders]
subscribes: {orders.placed: POST /events/placed}
`,
}

func q(path, name, value string) string { return path + "?" + name + "=" + url.QueryEscape(value) }

// name is how a service dials another one: by name in a namespace, by its variable elsewhere.
func (w *world) url(from, to, path string) string {
	if w.mode == fleet.Netns {
		return "http://" + to + path
	}
	_, base, _ := w.get(from, q("/env", "name", strings.ToUpper(to)+"_URL"))
	return base + path
}

func TestFirstFleet(t *testing.T) {
	inEach(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up()

		st := w.status()
		if st.Fleet != "test" || len(st.Services) != 4 {
			t.Fatalf("status: %+v", st)
		}
		for _, service := range st.Services {
			if service.State != fleet.ServiceReady || service.Mode != s.mode || service.Origin != fleet.Edit || service.Commit == "" {
				t.Errorf("%s: %+v", service.Name, service)
			}
		}
		w.expect("web", "/", "web v1 caller=gateway")
		w.expect("web", q("/get", "url", w.url("web", "orders", "/")), "orders v1 caller=web")
		w.expect("orders", q("/get", "url", w.url("orders", "stock", "/")), "inventory v1 caller=orders")

		t.Run("refused", func(t *testing.T) { refused(w) })
		t.Run("events", func(t *testing.T) { events(w) })
		t.Run("verbs", func(t *testing.T) { verbs(w) })
		w.run("down")
		w.expectNoProcesses()
	})
}

func refused(w *world) {
	if w.mode != fleet.Netns {
		return // an explicit service has no way to an undeclared one
	}
	status, body, header := w.get("web", q("/get", "url", "http://payments/"))
	if status != http.StatusForbidden || header.Get("Got-Shoal-Reason") != string(fleet.ReasonUndeclaredCall) {
		w.Fatalf("an undeclared call: %d %v %s", status, header, body)
	}
	for _, part := range []string{"web/shoal.yaml", "calls:", "payments: {}", "shoal why "} {
		if !strings.Contains(body, part) {
			w.Errorf("the refusal lacks %q:\n%s", part, body)
		}
	}
	why := w.run("why", header.Get("Got-X-Request-Id"))
	for _, part := range []string{"web", "payments", "web/shoal.yaml"} {
		if !strings.Contains(why, part) {
			w.Errorf("why lacks %q:\n%s", part, why)
		}
	}
	_, body, _ = w.get("web", q("/get", "url", "http://example.com/"))
	if !strings.Contains(body, "egress") || !strings.Contains(body, "example.com:80") {
		w.Errorf("undeclared egress: %s", body)
	}
}

func events(w *world) {
	to := "http://events/orders.placed"
	if w.mode == fleet.Explicit {
		_, base, _ := w.get("orders", q("/env", "name", "EVENTS_URL"))
		to = base + "/orders.placed"
	}
	req, _ := http.NewRequest(http.MethodPost, "http://"+w.status().Gateway+q("/send", "url", to), strings.NewReader(`{"order":1}`))
	req.Host = "orders.localhost"
	for name, value := range map[string]string{"Content-Type": "application/json", "Ce-Id": "e-1", "Ce-Source": "/orders", "Ce-Type": "orders.placed", "Ce-Specversion": "1.0"} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	must(w, err)
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		w.Fatalf("publishing: %s", resp.Status)
	}
	w.eventually("the event arrived", func() bool {
		_, body, _ := w.get("payments", "/seen")
		return strings.Contains(body, `/events/placed orders.placed e-1 {"order":1}`)
	})
	w.run("publish", "orders.placed", "-d", "by hand")
	w.eventually("the operator's event arrived", func() bool {
		_, body, _ := w.get("payments", "/seen")
		return strings.Contains(body, "by hand")
	})
}

func verbs(w *world) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"call", "http://inventory/"}, "inventory v1 caller=operator"},
		{[]string{"call", "--from", "orders", "http://inventory/"}, "inventory v1 caller=orders"},
		{[]string{"logs", "orders"}, "orders v1 listens on"},
		{[]string{"exec", "orders", "--", "sh", "-c", "echo in $(cat version.txt)"}, "in v1"},
		{[]string{"env"}, "SHOAL_GATEWAY"},
		{[]string{"env", "--as", "orders"}, "SHOAL_STATE"},
		{[]string{"graph"}, "orders"},
		{[]string{"graph", "--format", "dot"}, "digraph"},
		{[]string{"graph", "--format", "mermaid"}, "flowchart"},
		{[]string{"status"}, "inventory"},
		{[]string{"wait"}, ""},
		{[]string{"check"}, ""},
		{[]string{"doctor"}, "git"},
		{[]string{"version"}, ""},
	} {
		if got := w.run(c.args...); !strings.Contains(got, c.want) {
			w.Errorf("shoal %v:\n%s\nwant %q in it", c.args, got, c.want)
		}
	}
	if _, body, code := w.try("call", "--from", "web", "http://payments/"); code == 0 {
		w.Errorf("a call that payments does not allow succeeded: %s", body)
	}
	before := w.service("inventory").Instances[0].Instance
	w.run("restart", "inventory")
	if after := w.service("inventory").Instances; len(after) != 1 || after[0].Instance == before {
		w.Errorf("restart left %s: %+v", before, after)
	}
}
