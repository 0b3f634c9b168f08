package hub

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/shoalrun/shoal/deploy"
	"github.com/shoalrun/shoal/fleet"
)

// data is a data path that takes each change when it is let to, and acknowledges it later.
type data struct {
	install, ack chan struct{} // one token lets one change through

	mu      sync.Mutex
	address string // what answers for `search`
}

func (d *data) apply(ctx context.Context, c fleet.Change) error {
	if err := pass(ctx, d.install); err != nil {
		return err
	}
	d.take(c)
	return pass(ctx, d.ack)
}

func pass(ctx context.Context, gate <-chan struct{}) error {
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *data) take(c fleet.Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.address = c.Put[0].Endpoints[0].Address
}

func (d *data) serving() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.address
}

// TestAttachEnds leaves at each moment of an attach: before the nodes were told, before they had
// acknowledged it, and after.
func TestAttachEnds(t *testing.T) {
	const home, ide = "localhost:9200", "localhost:5005"
	for name, tokens := range map[string][2]int{"before it is told": {0, 0}, "before it is acknowledged": {1, 0}, "later": {1, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &data{install: make(chan struct{}, 8), ack: make(chan struct{}, 8)}
				h := startEngine(t, d.apply)
				let := func(install, ack int) {
					for range install {
						d.install <- struct{}{}
					}
					for range ack {
						d.ack <- struct{}{}
					}
					synctest.Wait()
				}
				target := deploy.Target{External: home}
				target.Manifest.Service = "search"
				if err := h.engine.Set(t.Context(), []deploy.Target{target}); err != nil {
					t.Fatal(err)
				}
				let(1, 1)

				ctx, leave := context.WithCancel(t.Context())
				attached := make(chan error, 1)
				go func() {
					attached <- h.attach(ctx, "search", ide, func(fleet.Progress) error { return nil })
				}()
				let(tokens[0], tokens[1])
				if want := [...]string{home, ide}[tokens[0]]; d.serving() != want {
					t.Errorf("for search answers %s; want %s", d.serving(), want)
				}
				leave()
				synctest.Wait()
				let(4, 4)
				if err := <-attached; err != nil || d.serving() != home {
					t.Errorf("after it %s answers for search; want %s; %v", d.serving(), home, err)
				}
			})
		})
	}
}

// startEngine runs an engine in a hub that has nothing else.
func startEngine(t *testing.T, apply func(context.Context, fleet.Change) error) *hub {
	h := &hub{progress: newProgress()}
	var err error
	h.engine, err = deploy.New(deploy.Config{Node: "n1", Driver: driver{}, Apply: apply})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.engine.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return h
}
