//go:build unix

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// healthy wants every service ready, with as many instances as it should have.
func (w *world) healthy(instances map[string]int) {
	w.Helper()
	for name, n := range instances {
		w.eventually(name+" is healthy", func() bool {
			s := w.service(name)
			return s.State == fleet.ServiceReady && len(s.Instances) == n
		})
	}
}

// applications are the processes that run the test service under name.
func (w *world) applications(name string) []string {
	var found []string
	for _, p := range w.processes() {
		if strings.HasSuffix(strings.TrimSpace(p), app+" "+name) && !strings.Contains(p, "/bin/sh") {
			found = append(found, p)
		}
	}
	return found
}

var oneEach = map[string]int{"web": 1, "orders": 1, "inventory": 1, "payments": 1}

// nothingLost wants all that was published to have arrived, one process for each instance, and no more.
func (w *world) nothingLost(published []string) {
	w.Helper()
	for _, event := range published {
		w.eventually(event+" arrived", func() bool { return strings.Contains(w.seen("payments"), event) })
	}
	for name := range oneEach {
		w.eventually("one process of "+name, func() bool { return len(w.applications(name)) == 1 })
	}
	for _, process := range []string{"hub", "node"} {
		w.eventually("one "+process, func() bool { return len(w.pids(process)) == 1 }) // it may have been killed a moment ago
	}
}

// kills is how often a process is killed in a test of its own.
const kills = 6

func TestNodeIsKilledAtAnyMoment(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up()
		to := q("/send", "url", w.eventsURL("orders")+"/orders.placed")
		var published []string
		for i := range kills {
			event := fmt.Sprintf("event-%d.", i)
			if code, body := w.send("orders", to, event); code/100 != 2 {
				t.Fatalf("publishing: %d %s", code, body)
			}
			published = append(published, event)
			var verb *background
			switch i % 3 {
			case 1:
				verb = w.start("restart", "web")
			case 2:
				w.write("inventory/version.txt", fmt.Sprint("v", i))
			}
			for range rand.IntN(12) { // each takes some milliseconds
				_, _, _ = w.try("version")
			}
			w.kill("node")
			w.up()
			if verb != nil {
				<-verb.done
			}
			w.healthy(oneEach)
		}
		w.expect("web", q("/get", "url", w.url("web", "orders", "/")), "orders v1 caller=web")
		w.nothingLost(published)
	})
}

func TestHubIsKilledDuringAnEdit(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, with(shop, map[string]string{"orders/shoal.yaml": shop["orders/shoal.yaml"] + "build: cat version.txt\n"}))
		w.up()
		path := q("/get", "url", w.url("web", "orders", "/"))
		l := w.startLoad("web", path)
		for i := range 3 {
			version := fmt.Sprint("edit", i)
			w.write("orders/version.txt", version)
			for range rand.IntN(20) {
				_, _, _ = w.try("version")
			}
			w.kill("hub")
			w.eventually(version+" serves", func() bool { return strings.Contains(w.run("call", "--from", "web", "http://orders/"), version) })
		}
		l.end(w)
		w.healthy(oneEach)
		w.nothingLost(nil)
	})
}

func TestHubIsKilledWhileAManifestIsBroken(t *testing.T) {
	w := newWorld(t, settings()[0], built)
	w.up()
	w.write("web/shoal.yaml", built["web/shoal.yaml"]+"helth: GET /\n")
	w.eventually("the mistake shows", func() bool { return strings.Contains(w.service("web").Failure, "helth") })
	if got := w.service("web").Failure; strings.Contains(got, "build failed") || !strings.Contains(got, "web/shoal.yaml:7:1") {
		t.Errorf("the mistake is told as %q", got)
	}
	w.kill("hub")
	w.eventually("the next hub shows it too", func() bool { return strings.Contains(w.status().Failure, "helth") })
	w.expect("web", "/", "web v1")
	w.write("web/shoal.yaml", built["web/shoal.yaml"])
	w.write("web/version.txt", "v2")
	w.eventually("v2 serves", func() bool { _, body, _ := w.get("web", "/"); return strings.Contains(body, "web v2") })
	if got := w.status().Failure; got != "" {
		t.Errorf("status still says %q", got)
	}
}

func TestShimIsKilled(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up()
		pid := w.service("orders").Instances[0].PID
		shim := w.ancestor(pid, "shim")
		must(t, syscall.Kill(shim, syscall.SIGKILL))
		w.eventually("orders was started again", func() bool {
			i := w.service("orders").Instances
			return len(i) == 1 && i[0].State == fleet.Ready && i[0].PID != pid
		})
		w.expect("web", q("/get", "url", w.url("web", "orders", "/")), "orders v1 caller=web")
		w.nothingLost(nil)
	})
}

// ancestor finds the process above pid whose command line ends with word.
func (w *world) ancestor(pid int, word string) int {
	w.Helper()
	for pid > 1 {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.HasSuffix(strings.TrimRight(string(cmdline), "\x00"), "\x00"+word) {
			return pid
		}
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, after, _ := strings.Cut(string(status), "PPid:")
		if _, err := fmt.Sscan(after, &pid); err != nil {
			break
		}
	}
	w.Fatalf("no %s above the application", word)
	return 0
}

func TestFlappingServiceLeavesOthersAlone(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up()
		l := w.startLoad("web", q("/get", "url", w.url("web", "orders", "/")))
		for i := range 3 {
			w.eventually("payments is there", func() bool { code, _, _ := w.get("payments", "/"); return code == 200 })
			w.post("payments", "/exit")
			w.eventually("payments was restarted", func() bool { i0 := w.service("payments").Instances; return len(i0) == 1 && i0[0].Restarts > i })
		}
		l.end(w)
		w.healthy(oneEach)
		w.nothingLost(nil)
	})
}

func TestDownAfterHubAndNodeWereKilled(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up()
		w.killBoth()
		w.run("down")
		w.expectNoProcesses()
		if out, errs, code := w.try("down"); code == 0 || !strings.Contains(errs, "no fleet is running") {
			t.Errorf("a second down: exit code %d %s%s", code, out, errs)
		}
	})
}

// killBoth kills hub and node, and whichever of them the other one has started again meanwhile.
func (w *world) killBoth() {
	w.Helper()
	w.eventually("neither is there", func() bool {
		both := append(w.pids("hub"), w.pids("node")...)
		for _, pid := range both {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(both) == 0
	})
}

func TestStaleRuntimeFolder(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, built)
		w.up()
		w.killBoth()
		w.up()
		w.expect("web", "/", "web v1")
		w.healthy(map[string]int{"web": 1})
		w.eventually("one process of web", func() bool { return len(w.applications("web")) == 1 })
	})
}

func TestTwoFleetsOnOneMachine(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		one := newWorld(t, s, shop)
		two := newWorld(t, s, with(shop, map[string]string{"orders/version.txt": "other"}))
		one.up()
		two.up()
		if a, b := one.status(), two.status(); a.Gateway == b.Gateway || a.Metrics == b.Metrics {
			t.Errorf("both have %s and %s", a.Gateway, a.Metrics)
		}
		one.expect("web", q("/get", "url", one.url("web", "orders", "/")), "orders v1 caller=web")
		two.expect("web", q("/get", "url", two.url("web", "orders", "/")), "orders other caller=web")
		one.run("down")
		one.expectNoProcesses()
		two.expect("web", q("/get", "url", two.url("web", "orders", "/")), "orders other caller=web")
	})
}

func TestExternals(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		go serveText(l, "from outside")
		w := newWorld(t, s, with(pairOf("web", "search"), map[string]string{
			"shoal.work": fmt.Sprintf("fleet: test\nrepos: [./web]\nexternals: {search: %q}\n", l.Addr()),
		}))
		w.up()
		if got := w.service("search"); got.State != fleet.ServiceExternal {
			t.Errorf("search is %+v", got)
		}
		w.expect("web", q("/get", "url", w.url("web", "search", "/")), "from outside")
	})
}
