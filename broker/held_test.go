package broker

import (
	"errors"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// Of two publishes of one event, the second is answered with the first. Where they cannot be placed yet, and the first one's publisher gives up
// meanwhile, the event is the second's: it is not answered as if it were committed.
func TestHeldEventIsWhoseStillWaits(t *testing.T) {
	b, err := New(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	topic := b.topic("orders")
	again := func() *publish {
		return newPublish(topic, []*record{{Event: Event{Topic: "orders", ID: "1", Source: "/orders", Type: "placed"}, given: true}})
	}
	first, second := again(), again()
	g := &group{topic: topic, publishes: []*publish{first, second}}
	e := b.engine.Load()
	if err := b.place(e, fleet.DurabilityDisk, g); err != nil {
		t.Fatal(err)
	}
	topic.wrote() // what was placed is taken back
	if n := len(g.batch.records); n != 1 {
		t.Errorf("two publishes of one event are %d records", n)
	}
	away := errors.New("away")
	e.fail(away)
	for _, left := range []bool{false, true} {
		first.left.Store(left)
		if err := b.place(e, fleet.DurabilityDisk, g); !errors.Is(err, away) {
			t.Errorf("placed: %v", err)
		}
		if len(g.publishes) == 0 || g.empty() {
			t.Error("nothing is left to be committed")
		}
	}
}
