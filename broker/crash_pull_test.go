//go:build unix

package broker_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/shoalrun/shoal/broker"
)

// pulling publishes and pulls messages with ordering keys until it is killed. It writes a line for each publish that was acknowledged (P),
// each delivery (D), and each acknowledgement before it is made (T) and once it is answered (A).
func pulling(dir string) error {
	b, err := broker.New(broker.Config{Dir: dir})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := b.CreateTopic(ctx, op, broker.TopicConfig{Name: "orders"}); broker.StatusOf(err) != 409 && err != nil {
		return err
	}
	c := broker.SubscriptionConfig{Name: "one", Topic: "orders", Ordering: true, ExactlyOnce: true}
	if _, err := b.CreateSubscription(ctx, op, c); broker.StatusOf(err) != 409 && err != nil {
		return err
	}
	for i := range 4 {
		go func() {
			for n := 0; ; n++ {
				line := fmt.Sprintf("%d-%d %d", os.Getpid(), i, n)
				key, _, _ := strings.Cut(line, " ")
				if _, err := b.PublishMessages(ctx, op, "orders", []broker.Message{{Data: []byte(line), OrderingKey: key}}); err != nil {
					return
				}
				fmt.Println("P", line)
			}
		}()
	}
	for range 2 {
		go func() { fmt.Fprintln(os.Stderr, pullAll(ctx, b)) }()
	}
	return b.Run(ctx)
}

// pullAll takes messages, and gives one in twenty back.
func pullAll(ctx context.Context, b *broker.Broker) error {
	r, err := b.NewReceiver(ctx, op, "one", broker.ReceiverConfig{MaxMessages: 20})
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		got, err := r.Receive(ctx, 10, 0)
		if err != nil {
			return err
		}
		for _, d := range got {
			fmt.Println("D", string(d.Data))
			if rand.IntN(20) == 0 {
				if _, err := b.ModifyDeadline(ctx, op, "one", []string{d.AckID}, 0); err != nil {
					return err
				}
				continue
			}
			fmt.Println("T", string(d.Data))
			results, err := b.Ack(ctx, op, "one", []string{d.AckID})
			if err != nil {
				return err
			}
			if results[0] == nil {
				fmt.Println("A", string(d.Data))
			}
		}
	}
}

// pullLedger is the checker: it reads the lines of one process after another.
type pullLedger struct {
	t         *testing.T
	mu        sync.Mutex
	published map[string]int  // by key: how many were acknowledged to the publisher
	acked     map[string]int  // by key: the next that is to be acknowledged
	tried     map[string]bool // acknowledgements that were made, answered or not
	done      map[string]int  // answered, by which process
	process   int
	again     int // deliveries that were repeated
	seen      map[string]bool
}

func (l *pullLedger) line(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kind, message, _ := strings.Cut(text, " ")
	var key string
	var n int
	if _, err := fmt.Sscan(message, &key, &n); err != nil {
		return // cut off by a kill
	}
	switch kind {
	case "P":
		l.published[key] = n + 1
	case "D":
		// Of the same process a delivery may be told late: it was void when the other receiver got the message.
		if process, ok := l.done[message]; ok && process < l.process {
			l.t.Errorf("message %s was delivered again, although its acknowledgement was answered", message)
		}
		if l.seen[message] {
			l.again++
		}
		l.seen[message] = true
	case "T":
		l.tried[message] = true
	case "A":
		l.done[message] = l.process
		for ; l.acked[key] < n; l.acked[key]++ { // one whose answer a kill cut off
			if missed := fmt.Sprintf("%s %d", key, l.acked[key]); !l.tried[missed] {
				l.t.Errorf("message %d of key %s was acknowledged before %d", n, key, l.acked[key])
			}
		}
		l.acked[key] = n + 1
	}
}

// TestCrashWhilePulling kills the broker's process in a loop while it publishes and delivers messages with ordering keys, exactly
// once: nothing acknowledged to a publisher is lost, each key takes effect in order, and nothing comes again whose acknowledgement was answered.
func TestCrashWhilePulling(t *testing.T) {
	l := &pullLedger{t: t, published: make(map[string]int), acked: make(map[string]int), tried: make(map[string]bool), done: make(map[string]int), seen: make(map[string]bool)}
	dir := t.TempDir()
	for range crashes() {
		for _, text := range killOne(t, dir, "pull") {
			l.line(text)
		}
		l.process++
	}
	k := newBench(t, dir)
	r := k.receiver("one", broker.ReceiverConfig{})
	for k.subscription("one").Lag > 0 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		got, err := r.Receive(ctx, 100, 0)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range got {
			l.line("D " + string(d.Data))
			l.line("T " + string(d.Data))
			k.ack("one", nil, d)
			l.line("A " + string(d.Data))
		}
	}
	total := 0
	for key, n := range l.published {
		total += n
		for i := range n {
			if message := fmt.Sprintf("%s %d", key, i); !l.tried[message] {
				t.Fatalf("message %s was acknowledged to its publisher, and nobody got it", message)
			}
		}
	}
	t.Logf("%d messages published over %d crashes, %d delivered again", total, crashes(), l.again)
	if total == 0 || l.again == 0 {
		t.Error("the crashes proved nothing")
	}
}
