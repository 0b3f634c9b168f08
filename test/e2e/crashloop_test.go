//go:build unix

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	crashTopic = "projects/test/topics/orders.placed"
	crashSub   = "projects/test/subscriptions/checked"
	crashKeys  = 3
	crashes    = 3 // of each process
)

// crashBook is the checker: what was acknowledged to whom.
type crashBook struct {
	*testing.T
	mu        sync.Mutex
	published map[string]string // id of a message that was acknowledged to its publisher, with its data
	settled   map[string]bool   // ids whose acknowledgement by the puller was answered
	tried     map[string]bool   // ids that the puller acknowledged, whatever became of the answer
	next      map[string]int    // by key: the next message that the puller has not seen
	again     int
}

// crashClient is what an application has of the Pub/Sub API.
func (w *world) crashClient() (pubsubpb.PublisherClient, pubsubpb.SubscriberClient) {
	w.Helper()
	conn, err := grpc.NewClient(w.hostEnv("PUBSUB_EMULATOR_HOST"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	must(w, err)
	w.Cleanup(func() { _ = conn.Close() })
	return pubsubpb.NewPublisherClient(conn), pubsubpb.NewSubscriberClient(conn)
}

// TestCrashLoop kills the hub and the node by turns while messages are published and pulled by the Pub/Sub API, and pushed: what was
// acknowledged to a publisher reaches both subscriptions, in order per key, and what was acknowledged to the puller, exactly once, does not come again.
func TestCrashLoop(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, map[string]string{
			"orders/shoal.yaml": natsShop["orders/shoal.yaml"],
			"mailer/shoal.yaml": strings.Replace(natsShop["mailer/shoal.yaml"], "pull", "{push: POST /events/placed, ordering: true}", 1),
		})
		w.up()
		publisher, subscriber := w.crashClient()
		_, err := subscriber.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: crashSub, Topic: crashTopic, EnableMessageOrdering: true, EnableExactlyOnceDelivery: true})
		must(t, err)
		b := &crashBook{T: t, published: make(map[string]string), settled: make(map[string]bool), tried: make(map[string]bool), next: make(map[string]int)}
		ctx, stop := context.WithCancel(t.Context())
		var publishers, pullers sync.WaitGroup
		for i := range crashKeys {
			publishers.Go(func() { b.publish(ctx, publisher, fmt.Sprint("key-", i)) })
		}
		pulling, leave := context.WithCancel(t.Context())
		pullers.Go(func() { b.pull(pulling, subscriber) })
		for range crashes {
			for _, process := range []string{"hub", "node"} {
				w.publishedMore(b, 20+rand.IntN(100))
				w.kill(process)
				w.eventually("the "+process+" is back", func() bool { return len(w.pids(process)) == 1 })
			}
		}
		w.publishedMore(b, 1)
		stop()
		publishers.Wait()
		w.eventually("everything was pulled", func() bool { return b.unsettled() == 0 })
		leave()
		pullers.Wait()
		w.eventually("everything was pushed", func() bool { return w.lag("mailer/orders.placed") == 0 })
		b.pushed(w.seen("mailer"))
		t.Logf("%d messages over %d crashes, %d pulled again", len(b.published), 2*crashes, b.again)
	})
}

// publishedMore waits until n more messages were acknowledged.
func (w *world) publishedMore(b *crashBook, n int) {
	w.Helper()
	from := b.count()
	w.eventually(fmt.Sprint(n, " more messages were published"), func() bool { return b.count() >= from+n })
}

func (b *crashBook) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.published)
}

// publish publishes one message of a key after the other, each until it is acknowledged: one whose answer was lost is then there twice.
func (b *crashBook) publish(ctx context.Context, c pubsubpb.PublisherClient, key string) {
	for n := 0; ctx.Err() == nil; {
		data := fmt.Sprintf("%s.%d;", key, n)
		r, err := c.Publish(ctx, &pubsubpb.PublishRequest{Topic: crashTopic, Messages: []*pubsubpb.PubsubMessage{{Data: []byte(data), OrderingKey: key}}})
		if !b.passes(err) {
			continue
		}
		b.mu.Lock()
		b.published[r.GetMessageIds()[0]] = data
		b.mu.Unlock()
		n++
	}
}

// passes reports whether a call succeeded; what fails otherwise than by a crash fails the test.
func (b *crashBook) passes(err error) bool {
	switch code := status.Code(err); code {
	case codes.OK:
		return true
	case codes.Unavailable, codes.Canceled:
	default:
		b.Errorf("a crash showed as %v", err)
	}
	return false
}

func (b *crashBook) pull(ctx context.Context, c pubsubpb.SubscriberClient) {
	for ctx.Err() == nil {
		r, err := c.Pull(ctx, &pubsubpb.PullRequest{Subscription: crashSub, MaxMessages: 20})
		if !b.passes(err) {
			continue
		}
		for _, m := range r.GetReceivedMessages() {
			if !b.acknowledge(ctx, c, m) {
				break // the rest of its key comes again
			}
		}
	}
}

// acknowledge looks at a message and acknowledges it, until that is answered.
func (b *crashBook) acknowledge(ctx context.Context, c pubsubpb.SubscriberClient, m *pubsubpb.ReceivedMessage) bool {
	b.saw(m.GetMessage())
	_, err := c.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: crashSub, AckIds: []string{m.GetAckId()}})
	if status.Code(err) == codes.InvalidArgument {
		return false // the hub that gave the lease is dead
	}
	if !b.passes(err) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settled[m.GetMessage().GetMessageId()] = true
	return true
}

func (b *crashBook) saw(m *pubsubpb.PubsubMessage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id, key, n := m.GetMessageId(), "", 0
	if b.settled[id] {
		b.Errorf("message %s came again, although its acknowledgement was answered", id)
	}
	if b.tried[id] {
		b.again++
	}
	b.tried[id] = true
	if _, err := fmt.Sscanf(strings.Replace(string(m.GetData()), ".", " ", 1), "%s %d;", &key, &n); err != nil {
		b.Errorf("%q came, which nobody published", m.GetData())
	}
	if n > b.next[key] {
		b.Errorf("message %d of %s came before %d", n, key, b.next[key])
	}
	b.next[key] = max(b.next[key], n+1)
}

// unsettled counts the messages that were acknowledged to their publisher, and that the puller has not got.
func (b *crashBook) unsettled() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.published {
		if !b.tried[id] {
			n++
		}
	}
	return n
}

// pushed checks what a receiver saw, in order.
func (b *crashBook) pushed(seen string) {
	at := make(map[string]int)
	for line := range strings.Lines(seen) {
		var key string
		var n int
		fields := strings.Fields(line)
		if _, err := fmt.Sscanf(strings.Replace(fields[len(fields)-1], ".", " ", 1), "%s %d;", &key, &n); err != nil {
			continue
		}
		if n > at[key] {
			b.Errorf("message %d of %s was pushed before %d", n, key, at[key])
		}
		at[key] = max(at[key], n+1)
	}
	for _, data := range b.published {
		if !strings.Contains(seen, data) {
			b.Errorf("message %s was acknowledged to its publisher, and not pushed", data)
		}
	}
}
