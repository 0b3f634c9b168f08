//go:build unix

package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// built is a service whose build fails while a file `broken` is there.
var built = map[string]string{
	"web/version.txt": "v1",
	"web/.gitignore":  "/ignored.txt\n",
	"web/shoal.yaml": `service: web
build: 'if test -f broken; then echo "main.go:3: syntax error" >&2; exit 1; fi'
run: APP web
listen: {8080: http}
health: GET /healthz
expose: true
`,
}

func TestEditUnderLoad(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, built)
		w.up()
		l := w.startLoad("web", "/")
		for _, version := range []string{"v2", "v3"} {
			w.write("web/version.txt", version)
			w.eventually(version+" serves", func() bool { _, body, _ := w.get("web", "/"); return strings.Contains(body, "web "+version) })
		}
		w.write("web/broken", "")
		w.eventually("the failed build shows", func() bool { return strings.Contains(w.service("web").Failure, "main.go:3: syntax error") })
		w.expect("web", "/", "web v3")
		must(t, syscall.Unlink(w.dir+"/web/broken"))
		w.write("web/version.txt", "sick")
		w.eventually("the next release starts", func() bool { return len(w.service("web").Instances) > 1 })
		w.expect("web", "/", "web v3")
		w.write("web/version.txt", "v4")
		w.eventually("v4 serves", func() bool { _, body, _ := w.get("web", "/"); return strings.Contains(body, "web v4") })
		w.run("restart", "web")
		l.end(w)
		w.eventually("one instance is left", func() bool { return len(w.service("web").Instances) == 1 })
	})
}

func TestCrashIsRestarted(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, built)
		w.up()
		w.post("web", "/exit")
		w.eventually("it was restarted", func() bool {
			i := w.service("web").Instances
			return len(i) == 1 && i[0].Restarts == 1 && i[0].State == fleet.Ready
		})
		w.expect("web", "/", "web v1")
	})
}

func TestInstancesOutliveHubAndNode(t *testing.T) {
	inEach(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up()
		before := w.service("web").Instances[0].PID
		for _, process := range []string{"hub", "node"} {
			pids := w.pids(process)
			if len(pids) != 1 {
				t.Fatalf("%s: processes %v", process, pids)
			}
			must(t, syscall.Kill(pids[0], syscall.SIGKILL))
			w.eventually(process+" is back", func() bool {
				now := w.pids(process)
				out, _, code := w.try("status", "--json")
				return len(now) == 1 && now[0] != pids[0] && code == 0 && strings.Contains(out, `"gateway"`)
			})
			w.eventually("web answers", func() bool { _, _, code := w.try("call", "http://web/"); return code == 0 })
		}
		w.eventually("web is known again", func() bool { return len(w.service("web").Instances) == 1 })
		if after := w.service("web").Instances[0]; after.PID != before || after.Restarts != 0 {
			t.Errorf("web did not run on: it was process %d, and is %+v", before, after)
		}
		w.write("web/version.txt", "v2")
		w.eventually("the hub that came back watches", func() bool { _, body, _ := w.get("web", "/"); return strings.Contains(body, "web v2") })
	})
}

func TestCallsFlowWhileTheHubIsGone(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up()
		path := q("/get", "url", w.url("web", "orders", "/"))
		l := w.startLoad("web", path)
		before := w.pids("hub")
		must(t, syscall.Kill(before[0], syscall.SIGKILL))
		w.eventually("the hub is back", func() bool { now := w.pids("hub"); return len(now) == 1 && now[0] != before[0] })
		l.end(w)
	})
}

func TestForegroundLeavesNothing(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		one := newWorld(t, s, built)
		for _, victim := range []string{"ctrl-c", "cli", "hub", "node", "down"} {
			t.Run(victim, func(t *testing.T) {
				w := *one
				w.T = t
				b := w.start("up", "--mode", string(s.mode))
				w.eventually("it is up", func() bool { _, _, code := w.try("wait", "--timeout", "1s"); return code == 0 })
				w.expect("web", "/", "web v1")
				switch victim {
				case "ctrl-c":
					must(t, b.Process.Signal(syscall.SIGINT))
				case "cli":
					must(t, b.Process.Kill())
				case "down":
					w.run("down")
				default:
					must(t, syscall.Kill(w.pids(victim)[0], syscall.SIGKILL))
				}
				<-b.done
				w.expectNoProcesses()
				died := victim == "hub" || victim == "node"
				if code := b.ProcessState.ExitCode(); died && (code == 0 || !strings.Contains(b.out.String(), "the "+victim)) {
					t.Errorf("up ended with %d and said:\n%s\nwant it to name the %s", code, b.out.String(), victim)
				}
			})
		}
	})
}

func TestUpgradeUnderLoad(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up()
		hub, node := w.pids("hub"), w.pids("node")
		pid := w.service("web").Instances[0].PID
		l := w.startLoad("web", q("/get", "url", w.url("web", "orders", "/")))
		w.run("upgrade")
		w.eventually("another node runs", func() bool { now := w.pids("node"); return len(now) == 1 && now[0] != node[0] })
		w.eventually("the hub is there", func() bool { return len(w.pids("hub")) == 1 && len(w.service("web").Instances) == 1 })
		l.end(w)
		if after := w.service("web").Instances[0].PID; after != pid {
			t.Errorf("web was process %d and is %d", pid, after)
		}
		w.expect("web", "/", "web v1")
		_ = hub
	})
}
