package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// What the part on idleness has.
const (
	manySubscriptions = 1000
	manyTopics        = 10000

	// After so many were made: a topic's log follows its first publishes some seconds later.
	settling, settlingTopics = 3 * time.Second, 15 * time.Second
)

// idle measures what a hub takes while nothing happens, with very many subscriptions, then with very many topics, each of which has a
// message.
func idle(ctx context.Context, o options) error {
	f, err := startFleet(ctx, o.dir)
	if err != nil {
		return err
	}
	defer f.Stop()
	env, err := f.Env(ctx)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+env["PUBSUB_EMULATOR_HOST"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	project := "projects/" + env["PUBSUB_PROJECT_ID"]
	subscriber := pubsubpb.NewSubscriberClient(conn)
	err = each(ctx, manySubscriptions, func(i int) error {
		_, err := subscriber.CreateSubscription(ctx, &pubsubpb.Subscription{Name: fmt.Sprintf("%s/subscriptions/idle%d", project, i), Topic: project + "/topics/" + topicName(0)})
		return err
	})
	if err != nil {
		return err
	}
	if err := watchIdle(ctx, o, f, "1,000 subscriptions on one topic", settling); err != nil {
		return err
	}
	publisher := pubsubpb.NewPublisherClient(conn)
	err = each(ctx, manyTopics, func(i int) error {
		topic := fmt.Sprintf("%s/topics/idle%d", project, i)
		if _, err := publisher.CreateTopic(ctx, &pubsubpb.Topic{Name: topic}); err != nil {
			return err
		}
		_, err := publisher.Publish(ctx, &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{{Data: make([]byte, size)}}})
		return err
	})
	if err != nil {
		return err
	}
	return watchIdle(ctx, o, f, "1,000 subscriptions and 10,000 topics", settlingTopics)
}

// each does n things, 64 at a time.
func each(ctx context.Context, n int, do func(i int) error) error {
	var next atomic.Int64
	_, err := flood(ctx, 64, time.Hour, func(context.Context, int) error {
		i := int(next.Add(1)) - 1
		if i >= n {
			return errDone
		}
		return do(i)
	})
	return err
}

// watchIdle adds the rows of the hub of a fleet, once it has settled.
func watchIdle(ctx context.Context, o options, f *harness.Fleet, name string, settling time.Duration) error {
	text, err := f.Command(ctx, "status", "--json").Output()
	if err != nil {
		return fmt.Errorf("shoal status: %w", err)
	}
	var status struct{ Hub struct{ PID int } }
	if err := json.Unmarshal(text, &status); err != nil {
		return err
	}
	pid := status.Hub.PID
	wait := func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := wait(settling); err != nil {
		return err
	}
	before, err := harness.CPUTime(pid)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := wait(5 * o.Time); err != nil {
		return err
	}
	after, err := harness.CPUTime(pid)
	if err != nil {
		return err
	}
	share := 100 * float64(after-before) / float64(time.Since(began))
	bytes, err := harness.Resident(pid)
	if err != nil {
		return err
	}
	mb := float64(bytes) / harness.Megabyte
	fmt.Printf("\n%s: the idle hub takes %.2f %% of a core, and %.1f MB\n", name, share, mb)
	return rows.Save(o.Rows,
		rows.Row{Row: name + ", idle", Sense: "<=", Goal: 5, Ours: share, Unit: "% of a core"},
		rows.Row{Row: name + ", the hub's memory", Ours: mb, Unit: "MB"})
}
