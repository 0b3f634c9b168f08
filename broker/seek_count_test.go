package broker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
)

// TestDryRunCountsWhatComes compares what a dry run counts with what is delivered then: with a filter, and with messages that were redriven for another
// subscription; over what is in the topic's log, and what is ahead of it.
func TestDryRunCountsWhatComes(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders", broker.SubscriptionConfig{Name: "all"}, broker.SubscriptionConfig{Name: "gifts", Filter: `attributes.kind = "gift"`})
	start := time.Now()
	for i := range 30 {
		m := broker.Message{Data: fmt.Append(nil, i), Attributes: map[string]string{"kind": []string{"gift", "plain", "plain"}[i%3]}}
		if _, err := k.PublishMessages(t.Context(), op, "orders", []broker.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
	all, gifts := k.receiver("all", broker.ReceiverConfig{}), k.receiver("gifts", broker.ReceiverConfig{})
	if _, err := k.Reject(t.Context(), op, "all", ackIDs(take(t, all, 30)...), "no"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are dead", func() bool { return k.subscription("all").DeadLetters == 30 })
	k.ack("gifts", nil, take(t, gifts, 10)...)
	if n, err := k.RedriveDeadLetters(t.Context(), broker.Redrive{Subscription: "all"}); n != 30 || err != nil {
		t.Fatalf("%d redriven: %v", n, err)
	}
	k.ack("all", nil, take(t, all, 30)...)
	for name, want := range map[string]int{"all": 60, "gifts": 10} {
		dry, err := k.SeekTime(t.Context(), op, name, start, true)
		if err != nil || int(dry.After) != want || dry.Before != 0 {
			t.Errorf("%s: a dry run counts %+v, not %d: %v", name, dry, want, err)
		}
		if _, err := k.SeekTime(t.Context(), op, name, start, false); err != nil {
			t.Fatal(err)
		}
		r := all
		if name == "gifts" {
			r = gifts
		}
		k.ack(name, nil, take(t, r, want)...)
		eventually(t, name+" has nothing left", func() bool { return k.subscription(name).Lag == 0 })
	}
}
