package main

import (
	"context"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// window is how many messages are on their way at most, published and not acknowledged, on either side.
const window = 2000

// newClient is the official client, on the Pub/Sub listener of a fleet.
func newClient(ctx context.Context, f *harness.Fleet) (*pubsub.Client, error) {
	env, err := f.Env(ctx)
	if err != nil {
		return nil, err
	}
	return pubsub.NewClient(ctx, env["PUBSUB_PROJECT_ID"], option.WithEndpoint(env["PUBSUB_EMULATOR_HOST"]), option.WithoutAuthentication(),
		option.WithTelemetryDisabled(), option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
}

// newPublisher has the client's own settings, but waits where the window is full.
func newPublisher(c *pubsub.Client, topic string) *pubsub.Publisher {
	p := c.Publisher(topic)
	p.PublishSettings.FlowControlSettings = pubsub.FlowControlSettings{
		MaxOutstandingMessages: window, MaxOutstandingBytes: -1, LimitExceededBehavior: pubsub.FlowControlBlock,
	}
	return p
}

// publishBatches publishes as fast as the window lets it, and returns how many messages were acknowledged once all are.
func publishBatches(ctx context.Context, p *pubsub.Publisher, until time.Time) (int, error) {
	results := make(chan *pubsub.PublishResult, 2*window)
	go func() {
		defer close(results)
		for ctx.Err() == nil && time.Now().Before(until) {
			results <- p.Publish(ctx, &pubsub.Message{Data: make([]byte, size)})
		}
	}()
	n := 0
	var failed error
	for r := range results {
		if _, err := r.Get(ctx); err != nil {
			failed = err
			continue
		}
		n++
	}
	return n, failed
}

// batches compares durable publishes in the client's batches with confirms of RabbitMQ.
func batches(ctx context.Context, o options) error {
	f, err := startFleet(ctx, o.dir)
	if err != nil {
		return err
	}
	defer f.Stop()
	client, err := newClient(ctx, f)
	if err != nil {
		return err
	}
	defer client.Close()
	// A queue keeps its messages for who will consume them: so does a topic with a subscription.
	_, err = client.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{
		Name: "projects/" + client.Project() + "/subscriptions/queue", Topic: "projects/" + client.Project() + "/topics/" + topicName(0),
	})
	if err != nil {
		return err
	}
	p := newPublisher(client, topicName(0))
	defer p.Stop()
	sides := []side{{"shoal, official client", func(ctx context.Context, length time.Duration) (float64, error) {
		began := time.Now()
		n, err := publishBatches(ctx, p, began.Add(length))
		return float64(n) / time.Since(began).Seconds(), err
	}}}
	if _, err := harness.Installed(rabbitProgram); err == nil {
		r, err := startRabbit(ctx, o.dir)
		if err != nil {
			return err
		}
		sides = append(sides, side{"RabbitMQ, quorum queue", r.publish})
	}
	const name = "disk publish, official client's batches, beside RabbitMQ"
	m, err := alternate(ctx, o, name, sides)
	if err != nil {
		return err
	}
	if len(m) == 1 {
		return rows.Save(o.Rows, alone(name, m[0], rabbitProgram))
	}
	return rows.Save(o.Rows, beside(name, 3, m[0], m[1]))
}
