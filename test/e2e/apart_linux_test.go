package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// The two ends of a cable: this machine's, and that of another one, which is a network namespace.
const (
	here  = "169.254.213.1"
	there = "169.254.213.2"
)

// cable is a network between this machine and another.
type cable struct {
	*testing.T
	name string // of the namespace; the interfaces are name-a, here, and name-b
}

// plug makes a network namespace and joins it to this one, until the test ends.
func plug(t *testing.T) *cable {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can make a network between two namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip: apt-get install iproute2")
	}
	c := &cable{t, fmt.Sprintf("sh%d", os.Getpid()%100000)}
	t.Cleanup(func() {
		_ = exec.Command("ip", "link", "del", c.name+"-a").Run()
		_ = exec.Command("ip", "netns", "del", c.name).Run()
	})
	c.ip("netns add NAME")
	c.ip("link add NAME-a type veth peer name NAME-b netns NAME")
	c.ip("addr add " + here + "/30 dev NAME-a")
	c.ip("link set NAME-a up")
	c.ip("-n NAME addr add " + there + "/30 dev NAME-b")
	c.ip("-n NAME link set NAME-b up")
	c.ip("-n NAME link set lo up")
	return c
}

func (c *cable) ip(words string) { c.run("ip " + words) }

func (c *cable) run(words string) {
	c.Helper()
	args := strings.Fields(strings.ReplaceAll(words, "NAME", c.name))
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		c.Fatalf("%s: %v\n%s", words, err, out)
	}
}

// TestMachinesApart runs two nodes with a real network between them, and disturbs it: a slow link, one that
// carries in one direction only, and none.
func TestMachinesApart(t *testing.T) {
	c := plug(t)
	files := portable(shop)
	files["orders/shoal.yaml"] += "instances: 2\n"
	files["shoal.work"] = "fleet: test\nrepos: [./web, ./orders, ./inventory, ./payments]\npeers: " + here + ":7443\n"
	w := newWorld(t, setting{"netns", fleet.Netns, 0}, files)
	w.up()
	w.join("b", "ip", "netns", "exec", c.name)
	w.place("orders", "b", "local")
	path := q("/get", "url", "http://orders/")

	t.Run("slow", func(t *testing.T) {
		c.run("tc qdisc add dev NAME-a root tbf rate 1mbit burst 16k latency 500ms")
		l := w.as(t).startLoad("web", path)
		time.Sleep(3 * time.Second) // the load goes on for a while
		l.end(w.as(t))
		c.run("tc qdisc del dev NAME-a root")
	})
	t.Run("one way", func(t *testing.T) {
		w := w.as(t)
		l := w.startLoad("web", path)
		c.ip("-n NAME route add blackhole " + here + "/32")
		w.eventually("b is away", func() bool { return w.node("b").State == fleet.NodeAway })
		c.ip("-n NAME route del blackhole " + here + "/32")
		w.eventually("b is back", func() bool { return w.node("b").State == fleet.NodeConnected && w.on("orders") == "b local" })
		l.end(w)
	})
	t.Run("lost", func(t *testing.T) {
		w := w.as(t)
		l := w.startLoad("web", path)
		c.ip("link set NAME-a down")
		w.eventually("b is away", func() bool { return w.node("b").State == fleet.NodeAway })
		spread := func() bool { return w.on("orders") == "local local" }
		moved := eventually(spread)
		if !moved { // it is given up after 30 s, which is all our patience
			moved = eventually(spread)
		}
		if !moved {
			t.Errorf("orders runs on %q, not twice here", w.on("orders"))
		}
		c.ip("link set NAME-a up")
		w.eventually("b is back, and told to stop what was replaced", func() bool {
			return w.node("b").State == fleet.NodeConnected && w.node("b").Instances == 0
		})
		l.end(w)
	})
}
