//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// with returns files with some of them replaced.
func with(files map[string]string, more map[string]string) map[string]string {
	all := map[string]string{}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range more {
		all[name] = text
	}
	return all
}

func TestLearn(t *testing.T) {
	s := settings()[0]
	w := newWorld(t, s, with(shop, map[string]string{"web/shoal.yaml": `service: web   # kept
run: APP web
listen: {8080: http}
health: GET /healthz
expose: true
`}))
	w.up("--learn")
	w.expect("web", q("/get", "url", "http://orders/"), "orders v1 caller=web")
	got := w.run("learn")
	if !strings.Contains(got, "orders") {
		t.Errorf("learn:\n%s", got)
	}
	w.run("learn", "--write")
	text, err := os.ReadFile(filepath.Join(w.dir, "web/shoal.yaml"))
	must(t, err)
	if !strings.Contains(string(text), "# kept") || !strings.Contains(string(text), "orders") {
		t.Errorf("the manifest became:\n%s", text)
	}
	w.run("down")
	w.up()
	w.expect("web", q("/get", "url", "http://orders/"), "orders v1 caller=web")
}

func TestUpOfOneServiceStartsWhatItCalls(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up("orders")
		for name, want := range map[string]fleet.ServiceState{"orders": fleet.ServiceReady, "inventory": fleet.ServiceReady, "web": fleet.ServiceStopped, "payments": fleet.ServiceStopped} {
			if got := w.service(name).State; got != want {
				t.Errorf("%s is %s; want %s", name, got, want)
			}
		}
	})
}

// variable returns a variable of a service's own view.
func (w *world) variable(service, name string) string {
	w.Helper()
	var vars []struct{ Name, Value string }
	must(w, json.Unmarshal([]byte(w.run("env", "--as", service, "--json")), &vars))
	for _, v := range vars {
		if v.Name == name {
			return v.Value
		}
	}
	w.Fatalf("env --as %s lacks %s: %v", service, name, vars)
	return ""
}

func TestAttachAndForward(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up()
		ide := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "from the IDE") }))
		defer ide.Close()
		// What the IDE runs in the place of orders calls by the variables that orders would get.
		inventory := w.variable("orders", "STOCK_URL")
		resp, err := http.Get(inventory + "/")
		must(t, err)
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if !strings.Contains(string(b), "inventory v1 caller=orders") {
			t.Errorf("a process that acts as orders got %q", b)
		}
		a := w.start("attach", "inventory", ide.Listener.Addr().String())
		w.eventually("the IDE answers for inventory", func() bool {
			out, _, _ := w.try("call", "--from", "orders", "http://inventory/")
			return strings.Contains(out, "from the IDE")
		})
		must(t, a.Process.Signal(os.Interrupt))
		w.eventually("inventory answers again", func() bool {
			out, _, _ := w.try("call", "--from", "orders", "http://inventory/")
			return strings.Contains(out, "inventory v1")
		})

		f := w.start("forward", "inventory:8080")
		w.eventually("the forwarded port answers", func() bool {
			_, local, ok := strings.Cut(f.out.String(), "inventory is on ")
			if !ok {
				return false
			}
			local, _, _ = strings.Cut(local, " ")
			resp, err := http.Get("http://" + local + "/")
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			return strings.Contains(string(b), "inventory v1")
		})
	})
}

func TestDebugSuspendsRestarts(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, built)
		w.up()
		w.run("debug", "web")
		if !w.service("web").Debug {
			t.Fatal("status does not show debug")
		}
		w.post("web", "/exit")
		w.eventually("it is down", func() bool { i := w.service("web").Instances; return len(i) == 1 && i[0].State != fleet.Ready })
		w.run("debug", "--off", "web")
		w.eventually("it runs again", func() bool { i := w.service("web").Instances; return len(i) == 1 && i[0].State == fleet.Ready })
	})
}

func TestTestRunsACommandInAFleet(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		out, errs, code := w.try("test", "--mode", string(s.mode), "--", "sh", "-c", `echo "gateway $SHOAL_GATEWAY"; exit 7`)
		if code != 7 || !strings.Contains(out, "gateway http://127.0.0.1:") {
			t.Errorf("exit code %d\n%s%s", code, out, errs)
		}
		w.expectNoProcesses()
	})
}

func TestTapShowsLiveCalls(t *testing.T) {
	w := newWorld(t, settings()[0], shop)
	w.up()
	tap := w.start("tap", "web")
	w.eventually("a call shows", func() bool {
		_, _, _ = w.get("web", "/tapped")
		return strings.Contains(tap.out.String(), "/tapped")
	})
}

func TestNeedsSecretsAndState(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		db, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer db.Close()
		go func() {
			for {
				c, err := db.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, "rows")
				_ = c.Close()
			}
		}()
		w := newWorld(t, s, map[string]string{
			"web/shoal.yaml": `service: web
run: APP web
listen: {8080: http}
health: GET /healthz
expose: true
needs:
  db: {tcp: 5432, local: true}
  cache: {tcp: 6379}
env:
  PASSWORD: {secret: web/password}
  PLAIN: visible
`,
			".env.shoal": "WEB_PASSWORD=s3cret-value\n",
			"shoal.work": "fleet: test\nrepos: [./web]\nsecrets: [.env.shoal]\nbind: {web.db: \"" + db.Addr().String() + "\"}\n",
		})
		w.up()
		w.expect("web", q("/env", "name", "PASSWORD"), "s3cret-value")
		w.expect("web", q("/env", "name", "PLAIN"), "visible")
		if env := w.run("env", "--as", "web"); strings.Contains(env, "s3cret-value") || !strings.Contains(env, "PLAIN") {
			t.Errorf("env --as web:\n%s", env)
		}
		if out := w.run("exec", "web", "--", "sh", "-c", "echo $PLAIN"); !strings.Contains(out, "visible") {
			t.Errorf("exec: %s", out)
		}
		to := "localhost:5432"
		if s.mode == fleet.Explicit {
			_, to, _ = w.get("web", q("/env", "name", "DB_ADDR"))
		}
		w.expect("web", q("/dial", "addr", to)+"&network=tcp", "rows")
		if s.mode == fleet.Netns {
			if status, body, _ := w.get("web", q("/read", "path", filepath.Join(w.dir, ".env.shoal"))); strings.Contains(body, "s3cret") {
				t.Errorf("the application reads the secrets: %d %s", status, body)
			}
			w.expect("web", q("/lookup", "name", "cache"), "198.19.")
			_, _, _ = w.get("web", q("/dial", "addr", "cache:6379")+"&network=tcp")
			w.eventually("the unbound need is explained", func() bool { return strings.Contains(w.run("why"), "bind") })
		}
	})
}

func TestLogFloodIsBounded(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, built)
		w.up()
		w.expect("web", q("/flood", "bytes", fmt.Sprint(40<<20)), "flooded")
		var size int64
		must(t, filepath.Walk(filepath.Join(w.dir, ".shoal", "logs"), func(_ string, info os.FileInfo, err error) error {
			if err == nil && !info.IsDir() {
				size += info.Size()
			}
			return nil
		}))
		if size > 12<<20 || size == 0 {
			t.Errorf("40 MB of output left %d bytes of log", size)
		}
		w.expect("web", "/", "web v1")
	})
}

func TestTermIgnoredIsKilled(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, with(built, map[string]string{"web/shoal.yaml": `service: web
run: APP web
listen: {8080: http}
health: GET /healthz
expose: true
grace: 3s
env: {IGNORE_TERM: "1"}
`}))
		w.up()
		down := w.start("down")
		w.eventually("it is being stopped", func() bool {
			out, _, _ := w.try("status")
			return strings.Contains(out, "stopping")
		})
		w.ended(down)
		w.expectNoProcesses()
	})
}

func TestMetrics(t *testing.T) {
	w := newWorld(t, settings()[0], shop)
	w.up()
	w.expect("web", "/", "web v1")
	w.run("publish", "orders.placed", "-d", "order 7")
	w.eventually("the one target has the gateway's call, and the hub's delivery", func() bool {
		resp, err := http.Get("http://" + w.status().Metrics + "/metrics")
		must(t, err)
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return strings.Contains(string(b), `shoal_requests_total{callee="web",caller="gateway",process="node",protocol="http",route="default"} 1`) &&
			strings.Contains(string(b), `shoal_requests_total{callee="payments",caller="events",process="hub",protocol="http",route="default"} 1`) &&
			strings.Contains(string(b), `shoal_subscription_ack_latency_seconds_count{process="hub",subscription="payments/orders.placed"} 1`) &&
			strings.Contains(string(b), `shoal_commit_messages_count{durability="disk",process="hub"} 1`) &&
			strings.Contains(string(b), `shoal_process_up{process="hub"} 1`)
	})
	w.eventually("the edge shows", func() bool {
		for _, e := range w.status().Edges {
			if e.From == fleet.Gateway && e.To == "web" && e.Requests > 0 && e.P99 > 0 {
				return true
			}
		}
		return false
	})
}
