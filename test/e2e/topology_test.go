//go:build unix

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// pairOf is a caller, and a callee that it declares.
func pairOf(caller, callee string) map[string]string {
	return map[string]string{
		caller + "/shoal.yaml": "service: " + caller + "\nrun: APP " + caller + "\nlisten: {8080: http}\nhealth: GET /healthz\nexpose: true\ncalls: [" + callee + "]\n",
	}
}

func serveText(l net.Listener, text string) {
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
}

func TestBranchSwitch(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, built)
		w.git("web", "checkout", "-qb", "feature")
		w.write("web/version.txt", "feature")
		w.write("web/added.txt", "x")
		w.commit("web")
		w.git("web", "checkout", "-q", "main")
		w.up()
		w.expect("web", "/", "web v1")
		l := w.startLoad("web", "/")
		for branch, version := range map[string]string{"feature": "feature", "main": "v1"} {
			w.git("web", "checkout", "-q", branch)
			w.eventually(branch+" serves", func() bool {
				_, body, _ := w.get("web", "/")
				got := w.service("web")
				return strings.Contains(body, "web "+version) && got.Commit == w.git("web", "rev-parse", "HEAD") && !got.Dirty
			})
		}
		l.end(w)
		w.healthy(map[string]int{"web": 1})
	})
}

func TestWorkspaceIsEditedWhileUp(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, with(shop, map[string]string{"shoal.work": "fleet: test\nrepos: [./web, ./orders, ./inventory]\n"}))
		w.up()
		l := w.startLoad("web", q("/get", "url", w.url("web", "orders", "/")))
		w.write("shoal.work", "fleet: test\nrepos: [./web, ./orders, ./inventory, ./payments]\n")
		w.eventually("payments is there", func() bool { code, _, _ := w.get("payments", "/"); return code == 200 })
		w.run("publish", "orders.placed", "-d", "to the new one")
		w.eventually("payments gets events", func() bool { return strings.Contains(w.seen("payments"), "to the new one") })
		w.write("shoal.work", "fleet: test\nrepos: [./web, ./orders, ./gone]\n")
		w.eventually("the mistake shows", func() bool {
			out, _, _ := w.try("status")
			return strings.Contains(out, "gone")
		})
		w.write("shoal.work", "fleet: test\nrepos: [./web, ./orders, ./inventory]\n")
		w.eventually("payments is gone", func() bool {
			return len(w.applications("payments")) == 0 && len(w.status().Services) == 3
		})
		l.end(w)
	})
}

func TestInstanceIsKilledUnderLoad(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, with(shop, map[string]string{"orders/shoal.yaml": shop["orders/shoal.yaml"] + "instances: 3\n"}))
		w.up()
		l := w.startLoad("web", q("/get", "url", w.url("web", "orders", "/")))
		direct := w.startLoad("orders", "/")
		for range 3 {
			victim := w.service("orders").Instances[0]
			must(t, syscall.Kill(victim.PID, syscall.SIGKILL))
			w.eventually("it was restarted", func() bool {
				for _, i := range w.service("orders").Instances {
					if i.Instance == victim.Instance {
						return i.State == fleet.Ready && i.Restarts > victim.Restarts
					}
				}
				return false
			})
		}
		l.end(w)
		direct.end(w)
		w.healthy(map[string]int{"orders": 3})
		w.eventually("three processes of orders", func() bool { return len(w.applications("orders")) == 3 })
	})
}

func TestWorkersAndBefore(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		manifest := built["web/shoal.yaml"] + `before: 'cat version.txt >> $SHOAL_STATE/before; if test -f broken-migration; then echo "no such column"; exit 4; fi'
workers: {mailer: APP web work}
`
		w := newWorld(t, s, with(built, map[string]string{"web/shoal.yaml": manifest, "web/version.txt": "v1\n"}))
		w.up()
		state := func(name string) string {
			b, _ := os.ReadFile(filepath.Join(w.dir, ".shoal", "state", "web", name))
			return string(b)
		}
		w.eventually("the worker works", func() bool { return state("worker") == "v1" })
		if state("before") != "v1\n" {
			t.Errorf("before ran: %q", state("before"))
		}
		w.run("restart", "web")
		if state("before") != "v1\n" {
			t.Errorf("before ran again for the same release: %q", state("before"))
		}
		l := w.startLoad("web", "/")
		w.write("web/version.txt", "v2\n")
		w.eventually("the worker is of v2", func() bool { return state("worker") == "v2" })
		w.expect("web", "/", "web v2")
		if state("before") != "v1\nv2\n" {
			t.Errorf("before ran: %q", state("before"))
		}
		w.write("web/broken-migration", "")
		w.eventually("the failed before shows", func() bool {
			out, _, _ := w.try("status")
			return strings.Contains(out, "no such column") || strings.Contains(w.service("web").Failure, "before")
		})
		if got := w.service("web"); !strings.Contains(strings.Join(got.LastLog, "\n")+got.Failure, "no such column") {
			t.Errorf("status does not show what before said: %+v", got)
		}
		w.expect("web", "/", "web v2")
		must(t, os.Remove(filepath.Join(w.dir, "web/broken-migration")))
		w.write("web/version.txt", "v3\n")
		w.eventually("v3 serves", func() bool { _, body, _ := w.get("web", "/"); return strings.Contains(body, "web v3") })
		l.end(w)
		w.eventually("one worker", func() bool { return len(w.applications("web work")) == 1 })
	})
}

func TestUpgradeToAReplacedBinary(t *testing.T) {
	built := filepath.Join(t.TempDir(), "shoal")
	build(built, "github.com/shoalrun/shoal/cmd/shoal", "-ldflags", "-X main.version=next")
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.binary = filepath.Join(w.dir, "shoal")
		must(t, copyFile(shoal, w.binary))
		w.up()
		pid, was, hub := w.service("web").Instances[0].PID, w.status().Version, w.pids("hub")[0]
		l := w.startLoad("web", q("/get", "url", w.url("web", "orders", "/")))
		next := filepath.Join(w.dir, "next")
		must(t, copyFile(built, next))
		must(t, os.Rename(next, w.binary)) // as a package manager does
		w.run("upgrade")
		if got := w.status().Version; got != "next" {
			t.Errorf("the hub is of version %s", got)
		}
		w.eventually("the old node has ended", func() bool { return len(w.pids("node")) == 1 })
		l.end(w)
		if after := w.service("web").Instances[0].PID; after != pid || was == "next" {
			t.Errorf("from version %s: web was process %d and is %d", was, pid, after)
		}
		if after := w.pids("hub")[0]; after != hub {
			t.Errorf("the hub was process %d and did not become the next version in place: %d", hub, after)
		}
		for _, process := range []string{"hub", "node"} {
			w.kill(process)
			w.eventually(process+" starts again as the next version", func() bool {
				out, _, code := w.try("status", "--json")
				return code == 0 && strings.Contains(out, `"next"`) && !strings.Contains(out, `"down"`) && len(w.pids(process)) == 1
			})
		}
		w.healthy(oneEach)
		w.nothingLost(nil)
	})
}

func TestUpgradeInTheForegroundIsRefused(t *testing.T) {
	w := newWorld(t, settings()[0], built)
	b := w.start("up", "--mode", string(w.mode))
	w.eventually("it is up", func() bool { _, _, code := w.try("wait", "--timeout", "1s"); return code == 0 })
	if _, errs, code := w.try("upgrade"); code == 0 || !strings.Contains(errs, "shoal up -d") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	w.expect("web", "/", "web v1")
	must(t, b.Process.Signal(syscall.SIGINT))
	<-b.done
	w.expectNoProcesses()
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copying a binary: %w", err)
	}
	return os.WriteFile(to, b, 0o755)
}
