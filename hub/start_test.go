package hub

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/control"
	"github.com/shoalrun/shoal/fleet"
)

// A hub that starts again knows its services before it serves anybody: their publishes are not refused in that moment.
func TestServicesAreKnownFromTheStart(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	work := filepath.Join(dir, "shoal.work")
	if err := os.WriteFile(work, []byte("fleet: shop\nrepos: [./orders]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	paths, err := api.Locate(filepath.Join(dir, ".shoal"))
	if err != nil {
		t.Fatal(err)
	}
	before(t, paths)
	h, err := assemble(Config{Node: "local", Paths: paths, Workspace: work, Cache: filepath.Join(dir, "cache"), Owned: true})
	if err != nil {
		t.Fatal(err)
	}
	runs(t, h.broker)
	if _, err := h.broker.Publish(t.Context(), "orders", broker.Event{Topic: "orders.placed", Data: []byte("x")}); err != nil {
		t.Error(err)
	}
}

// before is the hub of before: it leaves a fleet with one service.
func before(t *testing.T, paths api.Paths) {
	t.Helper()
	b, err := broker.New(broker.Config{Dir: filepath.Join(paths.HubDir, "jetstream")})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	c, err := control.New(control.Config{Store: b.Store(), Fleet: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	orders := fleet.Service{Name: "orders", Deployed: true, Manifest: fleet.Manifest{Service: "orders", Publishes: []string{"orders.placed"}}}
	if _, err := c.Apply(t.Context(), fleet.Change{Put: []fleet.Service{orders}}); err != nil {
		t.Fatal(err)
	}
}

// runs runs a broker until the test ends.
func runs(t *testing.T, b *broker.Broker) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
