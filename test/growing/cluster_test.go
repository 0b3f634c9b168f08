//go:build unix

package growing

import (
	"slices"
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
	eventually(t, "there are three copies of everything", func() bool { // some were made before the third server was known
		for info := range js.ListStreams(t.Context()).Info() {
			behind := func(p *jetstream.PeerInfo) bool { return !p.Current }
			if info.Config.Replicas != 3 || len(info.Cluster.Replicas) != 2 || slices.ContainsFunc(info.Cluster.Replicas, behind) {
				return false
			}
		}
		return true
	})
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
