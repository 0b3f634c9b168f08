package broker

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

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

// A publish that finds no room in the queue is refused. What is being written of its topic meanwhile is committed all the same, and known when it comes again.
func TestRefusedPublishDisturbsNoCommit(t *testing.T) {
	b, err := New(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	event := func() *record {
		return &record{Event: Event{Topic: "orders", ID: "1", Source: "/orders", Type: "placed"}, given: true}
	}
	topic := b.topic("orders")
	g := &group{topic: topic, publishes: []*publish{newPublish(topic, []*record{event()})}}
	if err := b.place(b.engine.Load(), fleet.DurabilityDisk, g); err != nil {
		t.Fatal(err)
	}
	queue := &b.commits[laneOf(fleet.DurabilityDisk)]
	queue.away = time.Now()
	queue.queue = slices.Repeat([]*publish{newPublish(topic, []*record{event()})}, heldMost)
	if _, err := b.commitRecords(t.Context(), "orders", []*record{event()}); StatusOf(err) != http.StatusServiceUnavailable {
		t.Errorf("it is not refused: %v", err)
	}
	g.settle()
	if !topic.recent.has(g.keys[0]) {
		t.Error("the event is not known")
	}
}
