//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// doers send what must not be done twice, and note what was answered.
type doers struct {
	requests atomic.Int64
	mu       sync.Mutex
	done     map[string]bool // answered with 200
	failed   []string        // request ids of what was not
	lost     int             // without an answer at all
	stop     chan struct{}
	work     sync.WaitGroup
}

// startDoers begins: POSTs without a key by which they could be repeated, one after the other.
func (w *world) startDoers(clients int) *doers {
	d := &doers{done: map[string]bool{}, stop: make(chan struct{})}
	base := "http://" + w.status().Gateway + "/do?id="
	for c := range clients {
		d.work.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
			for n := 0; n < 100_000; n++ {
				select {
				case <-d.stop:
					return
				default:
					d.once(client, base, fmt.Sprintf("%d-%d", c, n))
				}
			}
		})
	}
	w.eventually("work is done", func() bool { return d.requests.Load() > 10 })
	return d
}

func (d *doers) once(client *http.Client, base, id string) {
	req, _ := http.NewRequest(http.MethodPost, base+id, nil)
	req.Host = "orders.localhost"
	resp, err := client.Do(req)
	d.requests.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.lost++
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode == http.StatusOK {
		d.done[id] = true
		return
	}
	d.failed = append(d.failed, resp.Header.Get("X-Request-Id"))
}

func (d *doers) end() {
	close(d.stop)
	d.work.Wait()
}

// did counts, from what every instance on every machine ever wrote, how often each thing was done.
func (w *world) did() map[string]int {
	w.Helper()
	count := map[string]int{}
	must(w, filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(path, "/logs/") {
			return nil // a folder may vanish meanwhile
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if _, id, found := strings.Cut(lines.Text(), "did "); found {
				count[strings.TrimSpace(id)]++
			}
		}
		return nil
	}))
	return count
}

// TestChaos runs three nodes under calls of every kind, while instances and nodes are killed and paused, the
// hub dies and the root is rotated. What may not be repeated is done once at most, what was acknowledged was
// done, and what failed is explained.
func TestChaos(t *testing.T) {
	files := portable(pair)
	files["orders/shoal.yaml"] += "instances: 3\n"
	files["shoal.work"] = "fleet: test\nrepos: [./orders, ./stranger, ./web]\naccess: [web]\n"
	w := newWorld(t, setting{"netns", fleet.Netns, os.Getuid()}, files)
	w.up()
	b, c := w.join("b"), w.join("c")
	w.place("orders", "b", "c", "local")

	d := w.startDoers(3)
	loads := []*sideLoad{
		{name: "HTTP", method: "GET", path: q("/get", "url", "http://orders:8080/"), ok: func(s string) bool { return strings.Contains(s, "caller=web") }},
		{name: "gRPC", method: "GET", path: q("/grpc", "target", "orders:9090"), ok: func(s string) bool {
			return strings.Contains(s, "unary SERVING OK") && strings.Contains(s, "stream SERVING OK")
		}},
		{name: "TCP", method: "POST", path: q("/raw", "addr", "orders:9000") + "&half", body: "bytes", ok: func(s string) bool { return s == "got 5 bytes: bytes" }},
	}
	w.startSideLoads(d, loads)

	back := func(what string) {
		t.Helper()
		w.eventually("all is well after "+what, func() bool {
			return w.on("orders") == "b c local" && w.node("b").State == fleet.NodeConnected && w.node("c").State == fleet.NodeConnected
		})
	}
	signal := func(pid int, s syscall.Signal) { t.Helper(); must(t, syscall.Kill(pid, s)) }

	signal(w.service("orders").Instances[0].PID, syscall.SIGKILL)
	back("an instance was killed")
	paused := w.service("orders").Instances[1].PID
	signal(paused, syscall.SIGSTOP)
	time.Sleep(2 * time.Second) // as long as the fault lasts
	signal(paused, syscall.SIGCONT)
	back("an instance was paused")
	must(t, b.node.Process.Kill())
	<-b.node.done
	b.start()
	back("a node was killed")
	signal(c.node.Process.Pid, syscall.SIGSTOP)
	time.Sleep(5 * time.Second)
	signal(c.node.Process.Pid, syscall.SIGCONT)
	back("a node was paused")
	w.kill("hub")
	back("the hub was killed")
	for range 3 {
		w.eventually("a step of the rotation", func() bool { _, _, code := w.try("nodes", "rotate"); return code == 0 })
	}
	back("the root was rotated")
	d.end()

	w.expectDoneOnce(d)
	total := int(d.requests.Load())
	for _, id := range d.failed[:min(len(d.failed), total/20)] { // more are an error by themselves
		if out, errs, code := w.try("why", url.PathEscape(id)); code != 0 || !strings.Contains(out, "orders") {
			t.Errorf("why %s: %d\n%s%s", id, code, out, errs)
		}
	}
	t.Logf("%d things: %d done, %d failed, %d without an answer", total, len(d.done), len(d.failed), d.lost)
	if failed := len(d.failed) + d.lost; failed > total/20 {
		t.Errorf("%d of %d failed", failed, total)
	}
	for _, l := range loads {
		t.Logf("%s: %d good, %d bad", l.name, l.good, len(l.bad))
		if l.good < 20 || len(l.bad) > l.good/10+10 {
			t.Errorf("%s: %d good, %d bad", l.name, l.good, len(l.bad))
			continue
		}
		w.expectExplained(l)
	}
}

// expectDoneOnce: nothing was done twice, and all that was acknowledged is in the logs, once they are written.
func (w *world) expectDoneOnce(d *doers) {
	w.Helper()
	var did map[string]int
	never := func() (ids []string) {
		for id := range d.done {
			if did[id] == 0 {
				ids = append(ids, id)
			}
		}
		return ids
	}
	if !eventually(func() bool { did = w.did(); return len(never()) == 0 }) {
		w.Errorf("acknowledged and never done: %s", never())
	}
	for id, n := range did {
		if n > 1 {
			w.Errorf("%s was done %d times", id, n)
		}
	}
}
