package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/test/bench/rows"
)

// pulled is how many messages a puller asks for at once, and outstanding how many it may have that are not acknowledged. The official client
// sends its acknowledgements every 100 ms, so that its own limit of 1,000 would allow it no more than 10,000 messages a second.
const (
	pulled      = 1000
	outstanding = 10_000
)

// flow is messages that are published and pulled at the same time.
type flow struct {
	publish  func(ctx context.Context, until time.Time) (int, error) // how many were acknowledged
	received atomic.Int64
	ended    chan error // receives why the puller ended
}

// measure returns how many messages a second were published, received and acknowledged.
func (f *flow) measure(ctx context.Context, length time.Duration) (float64, error) {
	before, began := f.received.Load(), time.Now()
	n, err := f.publish(ctx, began.Add(length))
	if err != nil {
		return 0, err
	}
	for f.received.Load() < before+int64(n) {
		select {
		case err := <-f.ended:
			return 0, fmt.Errorf("the puller ended: %w", err)
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// streaming compares the official client, which publishes batches and pulls by streams, with JetStream's.
func streaming(ctx context.Context, o options) error {
	fleet, err := startFleet(ctx, o.dir)
	if err != nil {
		return err
	}
	defer fleet.Stop()
	client, err := newClient(ctx, fleet)
	if err != nil {
		return err
	}
	defer client.Close()
	ours, err := pubsubFlow(ctx, client)
	if err != nil {
		return err
	}
	peer, err := rawFlow(ctx, o)
	if err != nil {
		return err
	}
	const name = "os publish and StreamingPull, official client, beside JetStream's pull consumer"
	m, err := alternate(ctx, o, name, []side{{"shoal, official client", ours.measure}, {"JetStream, nats.go", peer.measure}})
	if err != nil {
		return err
	}
	return rows.Save(o.Rows, beside(name, 0.7, m[0], m[1]))
}

// pubsubFlow publishes to a topic of durability os, and pulls by the client's own settings.
func pubsubFlow(ctx context.Context, c *pubsub.Client) (*flow, error) {
	sub, err := c.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{
		Name: "projects/" + c.Project() + "/subscriptions/stream", Topic: "projects/" + c.Project() + "/topics/" + osTopic,
	})
	if err != nil {
		return nil, err
	}
	p := newPublisher(c, osTopic)
	f := &flow{ended: make(chan error, 1), publish: func(ctx context.Context, until time.Time) (int, error) { return publishBatches(ctx, p, until) }}
	s := c.Subscriber(sub.Name)
	s.ReceiveSettings.MaxOutstandingMessages = outstanding
	go func() {
		f.ended <- s.Receive(ctx, func(_ context.Context, m *pubsub.Message) {
			m.Ack()
			f.received.Add(1)
		})
	}()
	return f, nil
}

// rawFlow has JetStream in a process of its own.
func rawFlow(ctx context.Context, o options) (*flow, error) {
	url, err := startProcess(ctx, o.dir)
	if err != nil {
		return nil, err
	}
	r, err := openRaw(ctx, url)
	if err != nil {
		return nil, err
	}
	consumer, err := r.CreateConsumer(ctx, sharedStream, jetstream.ConsumerConfig{Durable: "bench", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: outstanding})
	if err != nil {
		return nil, err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(pulled))
	if err != nil {
		return nil, err
	}
	f := &flow{ended: make(chan error, 1), publish: r.publishAsync}
	go func() {
		for {
			m, err := messages.Next()
			if err == nil {
				err = m.Ack()
			}
			if err != nil {
				f.ended <- err
				return
			}
			f.received.Add(1)
		}
	}()
	return f, nil
}

// publishAsync publishes as fast as the window lets it, and returns how many messages were acknowledged.
func (r *raw) publishAsync(ctx context.Context, until time.Time) (int, error) {
	var futures []jetstream.PubAckFuture
	for ctx.Err() == nil && time.Now().Before(until) {
		f, err := r.PublishAsync("shared.os", make([]byte, size), jetstream.WithStallWait(10*time.Second))
		if err != nil {
			return 0, err
		}
		futures = append(futures, f)
	}
	select {
	case <-r.PublishAsyncComplete():
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			return 0, errors.Join(errors.New("a message was not acknowledged"), err)
		}
	}
	return len(futures), nil
}
