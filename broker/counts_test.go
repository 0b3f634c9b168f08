package broker_test

import (
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// What the metrics tell is counted: deliveries, those that expired, dead letters, stuck keys, duplicates, what waits in the schedule, how
// large groups were, and how long acknowledgements took.
func TestCounts(t *testing.T) {
	var mu sync.Mutex
	groups, acknowledged := map[fleet.Durability]int{}, map[string]int{}
	k := newBench(t, t.TempDir(), func(c *broker.Config) {
		c.Committed = func(class fleet.Durability, messages int, took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if groups[class] += messages; took <= 0 {
				t.Errorf("a group was written in %v", took)
			}
		}
		c.Acknowledged = func(subscription string, after time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if acknowledged[subscription]++; after <= 0 {
				t.Errorf("acknowledged %v after its commit", after)
			}
		}
	})
	k.topic("orders", broker.SubscriptionConfig{Name: "one", Ordering: true, DeadLetter: &broker.DeadLetterPolicy{Attempts: 6}})
	for range 2 {
		if _, err := k.Publish(t.Context(), op, broker.Event{Topic: "orders", ID: "e", Source: "/s", OrderingKey: "key", Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.PublishMessages(t.Context(), op, "orders", []broker.Message{{Data: []byte("x"), NotBefore: time.Now().Add(time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	r := k.receiver("one", broker.ReceiverConfig{})
	if _, err := k.ModifyDeadline(t.Context(), op, "one", ackIDs(take(t, r, 1)...), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		k.nack("one", take(t, r, 1)...)
	}
	if s := k.subscription("one"); s.Attempts != 5 || s.Expired != 1 || s.Failed != 5 || s.StuckKeys != 1 || s.Stuck == "" || s.GivenUp != 0 {
		t.Errorf("%+v", s)
	}
	k.nack("one", take(t, r, 1)...)
	eventually(t, "it is given up", func() bool { return k.subscription("one").GivenUp == 1 })
	k.say("orders", "", "y")
	k.ack("one", nil, take(t, r, 1)...)
	st := k.Status()
	if st.Scheduled != 1 || st.NextDue.IsZero() || st.Topics[0].Known != 1 || st.Topics[0].Published != 2 {
		t.Errorf("%+v", st)
	}
	if s := st.Subscriptions[0]; s.Attempts != 7 || s.Delivered != 1 || s.StuckKeys != 0 {
		t.Errorf("%+v", s)
	}
	mu.Lock()
	defer mu.Unlock()
	if groups[fleet.DurabilityDisk] != 2 || groups["schedule"] != 1 || acknowledged["one"] != 1 || len(acknowledged) != 1 {
		t.Errorf("groups %v, acknowledged %v", groups, acknowledged)
	}
}
