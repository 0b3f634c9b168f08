//go:build unix

package growing

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

// TestClusterLosesAServer: on three servers every stream has three copies, and the death of the one that leads loses nothing.
func TestClusterLosesAServer(t *testing.T) {
	three := servers(t, 3, settings{})
	k := newBench(t, t.TempDir(), engine(three, "shop"))
	eventually(t, "the servers are reached", func() bool { return k.Engine().Servers == 3 })
	k.make("orders", fleet.DurabilityDisk)
	c := check(t, k, "orders")
	c.runs(200)
	led := leader(t, three)
	led.kill()
	c.runs(200)
	led.start()
	c.runs(200)
	c.finish()
}

// leader is the server that leads the events, of which all have a copy.
func leader(t *testing.T, all []*natsNode) *natsNode {
	t.Helper()
	conn, err := nats.Connect(engine(all, "shop").URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	for info := range js.ListStreams(t.Context()).Info() {
		if info.Config.Replicas != 3 {
			t.Errorf("%s has %d copies", info.Config.Name, info.Config.Replicas)
		}
	}
	s, err := js.Stream(t.Context(), "SHOAL_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		if n.name == s.CachedInfo().Cluster.Leader {
			return n
		}
	}
	t.Fatalf("no server leads: %+v", s.CachedInfo().Cluster)
	return nil
}
