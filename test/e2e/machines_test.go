//go:build unix

package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// machine is another node of a world's fleet: a data folder, a cache and a process of its own.
type machine struct {
	*world
	name string
	wrap []string // runs the node in a network of its own
	node *background
}

// portable makes every service one that can run anywhere: what has no `build` runs in its clone.
func portable(files map[string]string) map[string]string {
	files = maps.Clone(files)
	for name, text := range files {
		if strings.HasSuffix(name, "shoal.yaml") {
			files[name] = text + "build: \"true\"\n"
		}
	}
	return files
}

// join lets a machine join the fleet.
func (w *world) join(name string, wrap ...string) *machine {
	w.Helper()
	on := *w
	on.dir = filepath.Join(w.dir, name)
	on.env = append(slices.Clone(w.env), "XDG_CACHE_HOME="+filepath.Join(on.dir, "cache"))
	must(w, os.Mkdir(on.dir, 0o755))
	must(w, os.Lchown(on.dir, w.uid, w.uid))
	m := &machine{world: &on, name: name, wrap: wrap}
	w.Cleanup(func() {
		if w.Failed() {
			w.Logf("node %s:\n%s", name, m.node.out.String())
		}
	})
	command := strings.Fields(w.run("nodes", "token", name))
	m.start(command[1:]...)
	w.eventually(name+" has joined", func() bool { return w.node(name).State == fleet.NodeConnected })
	w.Cleanup(func() {
		if out, errs, code := m.down(); code != 0 && !strings.Contains(errs, "no fleet is running") {
			w.Errorf("down on %s: exit code %d\n%s%s", name, code, out, errs)
		}
	})
	return m
}

// down stops what runs on the machine, and its node.
func (m *machine) down() (stdout, stderr string, code int) {
	m.Helper()
	return m.try("down", "--data", filepath.Join(m.dir, ".shoal"))
}

// start starts the machine's node: to join, or again.
func (m *machine) start(args ...string) {
	m.Helper()
	if len(args) == 0 {
		args = []string{"node"}
	}
	m.node = m.world.startIn(m.wrap, append(args, "--mode", string(m.mode))...)
}

// startIn starts a verb in the background by another command, if one is given.
func (w *world) startIn(wrap []string, args ...string) *background {
	w.Helper()
	if len(wrap) == 0 {
		return w.start(args...)
	}
	on := *w
	on.binary = wrap[0]
	return on.start(slices.Concat(wrap[1:], []string{shoal}, args)...)
}

// node returns a node of the fleet as its hub knows it.
func (w *world) node(name string) fleet.NodeInfo {
	w.Helper()
	for _, n := range w.status().Nodes {
		if n.Name == name {
			return n
		}
	}
	return fleet.NodeInfo{}
}

// on names the nodes of a service's ready instances, sorted.
func (w *world) on(service string) string {
	w.Helper()
	var nodes []string
	for _, i := range w.service(service).Instances {
		if i.State == fleet.Ready {
			nodes = append(nodes, i.Node)
		}
	}
	slices.Sort(nodes)
	return strings.Join(nodes, " ")
}

func (w *world) place(service string, nodes ...string) {
	w.Helper()
	w.run("up", "-d", service, "--node", strings.Join(nodes, ","))
	want := strings.Join(slices.Sorted(slices.Values(nodes)), " ")
	w.eventually(service+" runs on "+want, func() bool { return w.on(service) == want })
}

// TestDataPathBetweenMachines is TestDataPath with the callee on another node.
func TestDataPathBetweenMachines(t *testing.T) {
	inEach(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, portable(pair))
		w.up()
		w.join("b")
		w.place("orders", "b")
		base := "http://" + w.addr("web", "orders", 8080)
		for name, test := range map[string]func(w *world, base string){
			"gRPC": grpcCalls, "WebSocket": webSockets, "chunked": chunkedBothWays, "HEAD": heads, "streaming": streaming,
			"leaving": leaving, "TCP": rawTCP, "names": namesAndPorts, "refused": refusedPorts,
		} {
			t.Run(name, func(t *testing.T) { test(w.as(t), base) })
		}
	})
}

func TestServiceMovesToAnotherMachineUnderLoad(t *testing.T) {
	inEach(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, portable(shop))
		w.up()
		w.join("b")
		l := w.startLoad("web", q("/get", "url", w.url("web", "orders", "/")))
		w.place("orders", "b")
		w.place("orders", "local")
		if s.mode == fleet.Netns { // elsewhere the load's URL is of one instance
			w.place("web", "b")
		}
		l.end(w)
	})
}

// An event travels from a service on one machine to one on another, and back to the hub's.
func TestEventsBetweenMachines(t *testing.T) {
	inEach(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, portable(shop))
		w.up()
		w.join("b")
		w.place("payments", "b")
		w.run("publish", "orders.placed", "-d", "order 6")
		w.eventually("payments has it", func() bool { return strings.Contains(w.seen("payments"), "order 6") })
		w.place("orders", "b")
		if code, body := w.send("orders", q("/send", "url", w.eventsURL("orders")+"/orders.placed"), "order 7"); code/100 != 2 {
			t.Fatalf("publishing: %d %s", code, body)
		}
		w.eventually("payments has both", func() bool { return strings.Contains(w.seen("payments"), "order 7") })
	})
}

// What runs on a node goes on while the node's process, or the hub, is not there.
func TestNodeElsewhereIsKilled(t *testing.T) {
	inEach(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, portable(shop))
		w.up()
		b := w.join("b")
		w.place("orders", "b")
		pid := w.service("orders").Instances[0].PID
		must(t, b.node.Process.Kill())
		<-b.node.done
		b.start()
		w.eventually("the node is back", func() bool { return w.node("b").State == fleet.NodeConnected && w.on("orders") == "b" })
		if now := w.service("orders").Instances[0].PID; s.mode == fleet.Netns && now != pid {
			t.Errorf("orders was process %d and is %d: it did not outlive its node", pid, now)
		}
		path := q("/get", "url", w.url("web", "orders", "/"))
		w.eventually("calls reach it", func() bool { status, _, _ := w.get("web", path); return status == 200 })
		l := w.startLoad("web", path)
		w.kill("hub")
		w.eventually("the hub is back", func() bool { return w.node("b").State == fleet.NodeConnected })
		l.end(w)
	})
}

// A machine that is gone for good is replaced where another may run what it ran, once its node is revoked.
func TestRevokedNodeIsCutOff(t *testing.T) {
	inEach(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, portable(shop))
		w.up()
		b := w.join("b")
		w.place("orders", "b")
		w.run("nodes", "revoke", "b")
		w.eventually("its instance is forgotten", func() bool { return w.on("orders") == "" })
		w.place("orders", "local")
		w.expect("web", q("/get", "url", w.url("web", "orders", "/")), "orders v1")
		if state := w.node("b").State; state != fleet.NodeRevoked {
			t.Errorf("b is %s", state)
		}
		_ = b.node.Process.Signal(syscall.SIGTERM)
		<-b.node.done
		if out, errs, code := b.down(); code != 0 {
			t.Errorf("down on the revoked node: %d\n%s%s", code, out, errs)
		}
		b.start()
		w.eventually("it says why it is refused", func() bool { return strings.Contains(b.node.out.String(), "revoked") })
	})
}

// The root is replaced, step by step, under load: no call fails, and every certificate is of the new one.
func TestRootIsRotatedUnderLoad(t *testing.T) {
	inEach(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, portable(shop))
		w.up()
		w.join("b")
		w.place("orders", "b")
		l := w.startLoad("web", q("/get", "url", w.url("web", "orders", "/")))
		for _, said := range []string{"a new root certificate is made", "the new root signs", "the old root is withdrawn"} {
			w.eventually(said, func() bool {
				out, _, code := w.try("nodes", "rotate")
				return code == 0 && strings.Contains(out, said)
			})
		}
		w.join("c")
		w.place("orders", "c")
		l.end(w)
	})
}

// Certificates that live for seconds are renewed under load and no call fails; one that expired while its node stood
// still is renewed by the same command as a valid one.
func TestExpiredCertificateIsRenewed(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		files := portable(shop)
		files["shoal.work"] = "fleet: test\nrepos: [./inventory, ./orders, ./payments, ./web]\ncertificates: 10s\n"
		w := newWorld(t, s, files)
		w.up()
		b := w.join("b")
		w.place("orders", "b")
		path := q("/get", "url", w.url("web", "orders", "/"))
		l := w.startLoad("web", path)
		for range 3 {
			before := w.node("b").Expires
			w.eventually("the certificate is renewed", func() bool { return w.node("b").Expires.After(before) })
		}
		l.end(w)

		must(t, b.node.Process.Signal(syscall.SIGSTOP))
		expires := w.node("b").Expires
		w.eventually("the certificate expires", func() bool { return time.Now().After(expires) })
		if now := w.node("b").Expires; !now.Equal(expires) {
			t.Fatalf("a node that stands still renewed its certificate, which ended at %v and ends at %v", expires, now)
		}
		must(t, b.node.Process.Signal(syscall.SIGCONT))
		w.eventually("the ordinary command renews it", func() bool {
			out, _, code := b.try("nodes", "renew", "--data", filepath.Join(b.dir, ".shoal"))
			return code == 0 && strings.Contains(out, "renewed; good until")
		})
		w.eventually("the node is back", func() bool {
			n := w.node("b")
			return n.State == fleet.NodeConnected && n.Expires.After(expires)
		})
		w.eventually("calls reach it", func() bool { status, _, _ := w.get("web", path); return status == 200 })
	})
}

// What acts as a service is typed where it runs; elsewhere the error names that machine.
func TestActingAsAServiceElsewhere(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, portable(shop))
		w.up()
		b := w.join("b")
		w.place("orders", "b")
		w.place("inventory", "b")
		if _, errs, code := w.try("exec", "orders", "--", "true"); code == 0 || !strings.Contains(errs, "orders runs on b") {
			t.Errorf("exec: %d %s", code, errs)
		}
		out, errs, _ := w.try("call", "--from", "orders", "http://inventory/")
		if !strings.Contains(out+errs, "orders runs on b") {
			t.Errorf("call --from: %s%s", out, errs)
		}
		data := filepath.Join(b.dir, ".shoal")
		if out, errs, code := b.try("exec", "--data", data, "orders", "--", "echo", "it", "runs"); code != 0 || !strings.Contains(out, "it runs") {
			t.Errorf("exec on b: %d %s%s", code, out, errs)
		}
		if out, errs, code := b.try("call", "--data", data, "--from", "orders", "http://inventory/"); code != 0 || !strings.Contains(out, "caller=orders") {
			t.Errorf("call --from on b: %d %s%s", code, out, errs)
		}
	})
}

// What shoal.work says of access records takes effect on other machines, too, when it is saved.
func TestAccessRecordsOfAnotherMachine(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		files := portable(shop)
		files["shoal.work"] = "fleet: test\nrepos: [./inventory, ./orders, ./payments, ./web]\n"
		w := newWorld(t, s, files)
		w.up()
		b := w.join("b")
		w.place("orders", "b")
		path := q("/get", "url", w.url("web", "orders", q("/get", "url", w.url("orders", "stock", "/"))))
		records := func() string {
			out, _, _ := b.try("logs", "--access", "--data", filepath.Join(b.dir, ".shoal"))
			return out
		}
		w.expect("web", path, "inventory v1")
		if out := records(); strings.Contains(out, "inventory") {
			t.Errorf("records that nobody wanted: %s", out)
		}
		w.write("shoal.work", files["shoal.work"]+"access: true\n")
		w.eventually("b writes what orders calls", func() bool {
			w.expect("web", path, "inventory v1")
			return strings.Contains(records(), `"callee":"inventory"`)
		})
	})
}
