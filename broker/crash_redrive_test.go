//go:build unix

package broker_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// redriving redrives until it is killed, and writes a line now and then.
func redriving(dir string) error {
	b, err := broker.New(broker.Config{Dir: dir})
	if err != nil {
		return err
	}
	b.Install(&fleet.Snapshot{Fleet: "shop"})
	go func() {
		fmt.Println("begun")
		_, _ = b.RedriveDeadLetters(context.Background(), broker.Redrive{Subscription: "one"})
	}()
	go func() {
		for range time.Tick(time.Millisecond) {
			fmt.Println("works")
		}
	}()
	return b.Run(context.Background())
}

// TestCrashOfRedrives kills the hub again and again while it redrives: every dead letter is redriven once, in order.
func TestCrashOfRedrives(t *testing.T) {
	const n = 1500
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("orders", broker.SubscriptionConfig{Name: "one", Ordering: true})
	bury(t, k.Broker, n)
	eventually(t, "all are dead", func() bool { return k.subscription("one").DeadLetters == n })
	k.stop()
	left, midway := n, 0
	for range crashes() {
		after := 2 + rand.IntN(60)
		killWhen(t, dir, "redrive", func(lines int) bool { return lines == after })
		k := newBench(t, dir)
		k.Install(&fleet.Snapshot{Fleet: "shop"})
		s := k.subscription("one")
		if int(s.Lag+s.DeadLetters) != n || s.DeadLetters > uint64(left) {
			t.Errorf("%d redriven and %d dead letters are not %d", s.Lag, s.DeadLetters, n)
		}
		if int(s.DeadLetters) < left && s.DeadLetters > 0 {
			midway++
		}
		left = int(s.DeadLetters)
		k.stop()
	}
	if midway == 0 {
		t.Error("no kill came in the middle of a redrive: they proved nothing")
	}
	k = newBench(t, dir)
	k.Install(&fleet.Snapshot{Fleet: "shop"})
	if m, err := k.RedriveDeadLetters(t.Context(), broker.Redrive{Subscription: "one"}); m != left || err != nil {
		t.Errorf("%d of %d redriven: %v", m, left, err)
	}
	r := k.receiver("one", broker.ReceiverConfig{})
	for i := range n {
		d := take(t, r, 1)[0]
		if string(d.Data) != strconv.Itoa(i) {
			t.Fatalf("message %s came in the place of %d", d.Data, i)
		}
		k.ack("one", nil, d)
	}
	if s := k.subscription("one"); s.Lag != 0 || s.DeadLetters != 0 {
		t.Errorf("left: %+v", s)
	}
}
