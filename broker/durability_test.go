package broker_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// withDurability is the shop whose topic has a durability class.
func withDurability(class fleet.Durability) *fleet.Snapshot {
	s := shop()
	s.Services[0].Manifest.Topics = []fleet.Topic{{Name: "orders.placed", Durability: class}}
	return s
}

// TestDurabilityClasses publishes to a topic of each class and restarts: memory alone forgets. The second server has files of
// its own from its first topic on.
func TestDurabilityClasses(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	second := filepath.Join(dir, "os")
	all := []fleet.Durability{fleet.DurabilityDisk, fleet.DurabilityMemory, fleet.DurabilityOS}
	for _, class := range all {
		name := "topic-" + string(class)
		if _, err := k.CreateTopic(t.Context(), op, broker.TopicConfig{Name: name, Durability: class}); err != nil {
			t.Fatal(err)
		}
		if _, err := k.CreateSubscription(t.Context(), op, broker.SubscriptionConfig{Name: "sub-" + string(class), Topic: name}); err != nil {
			t.Fatal(err)
		}
		if ids := k.say(name, "", "a", "b"); ids[1] != "1" {
			t.Errorf("%s: ids %v", class, ids)
		}
		r := k.receiver("sub-"+string(class), broker.ReceiverConfig{})
		k.ack("sub-"+string(class), nil, take(t, r, 2)[0])
		if _, err := os.Stat(second); (err == nil) != (class == fleet.DurabilityOS) {
			t.Errorf("%s: the second server's folder: %v", class, err)
		}
	}
	k.stop()
	k = newBench(t, dir)
	for _, class := range all {
		want := "b"
		if class == fleet.DurabilityMemory {
			want = "c"
		}
		k.say("topic-"+string(class), "", "c")
		if got := take(t, k.receiver("sub-"+string(class), broker.ReceiverConfig{}), 1); data(got) != want {
			t.Errorf("%s: after a restart %q comes first", class, data(got))
		}
	}
}

// TestChangeOfDurability moves a topic from class to class while publishers go on: nothing that was acknowledged is lost, nothing is
// delivered twice that was acknowledged, and the ids go on.
func TestChangeOfDurability(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.Install(withDurability(""))
	if _, err := k.CreateSubscription(t.Context(), op, broker.SubscriptionConfig{Name: "one", Topic: "orders.placed"}); err != nil {
		t.Fatal(err)
	}
	r := k.receiver("one", broker.ReceiverConfig{})
	var mu sync.Mutex
	var acked []string
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				ids, err := k.PublishMessages(context.Background(), "orders", "orders.placed", []broker.Message{{Data: fmt.Appendf(nil, "%d.%d", i, n)}})
				if err != nil {
					t.Errorf("publishing: %v", err)
					return
				}
				mu.Lock()
				acked = append(acked, ids...)
				mu.Unlock()
			}
		})
	}
	got := make(map[string]int)
	collect := func(n int) {
		for _, d := range take(t, r, n) {
			got[d.ID]++
			k.ack("one", nil, d)
		}
	}
	for _, class := range []fleet.Durability{fleet.DurabilityOS, fleet.DurabilityMemory, fleet.DurabilityDisk, fleet.DurabilityOS} {
		collect(30)
		k.Install(withDurability(class))
		if c, err := k.Topic(t.Context(), "orders.placed"); err != nil || c.Durability != class {
			t.Errorf("%+v %v", c, err)
		}
	}
	collect(30)
	stop()
	wg.Wait()
	for len(got) < len(acked) {
		collect(1)
	}
	for _, id := range acked {
		if got[id] == 0 {
			t.Fatalf("message %s of %d is lost", id, len(acked))
		}
	}
	eventually(t, "all settled", func() bool { return k.subscription("one").Lag == 0 })
	k.stop()
	k = newBench(t, dir)
	k.Install(withDurability(fleet.DurabilityOS))
	if topic := k.Topics()[0]; topic.Published != uint64(len(acked)) || topic.Retained != topic.Published {
		t.Errorf("%+v, %d were acknowledged", topic, len(acked))
	}
	if s := k.subscription("one"); s.Lag != 0 {
		t.Errorf("%+v", s)
	}
}
