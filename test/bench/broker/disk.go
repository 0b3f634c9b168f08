package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// shape is so many publishers, each of which waits for the acknowledgement of its message before it publishes the next one.
type shape struct {
	publishers, topics int
	name               string
	goal               float64
}

var shapes = []shape{
	{64, 1, "disk publish, 64 publishers, one topic", 12},
	{64, 64, "disk publish, 64 publishers, 64 topics", 2.5},
	{512, 1, "disk publish, 512 publishers, one topic", 20},
}

// diskPublish compares what publishers get who are in the broker's process with raw JetStream (SyncAlways) in theirs; and tells what the
// same publishers get by NATS from the real binary.
func diskPublish(ctx context.Context, o options) error {
	ours, err := startEngine(ctx, o.dir)
	if err != nil {
		return err
	}
	peer, err := startRaw(ctx, o.dir)
	if err != nil {
		return err
	}
	defer peer.stop()
	front, err := startFront(ctx, o.dir)
	if err != nil {
		return err
	}
	defer front.stop()
	if err := ours.topics(ctx, 64); err != nil {
		return err
	}
	stop, err := harness.Profile(harness.ProfileName(o.profile, "disk publish", "engine"))
	if err != nil {
		return err
	}
	defer stop()
	for _, shape := range shapes {
		m, err := alternate(ctx, o, shape.name, []side{
			{"shoal, in process", shape.flood(ours.publish)}, {"JetStream, in process", shape.flood(peer.publish)},
			{"shoal's binary, by NATS", shape.flood(front.publish)},
		})
		if err != nil {
			return err
		}
		if err := rows.Save(o.rows, beside(shape.name, shape.goal, m[0], m[1]), beside(shape.name+", the binary by NATS", 0, m[2], m[1])); err != nil {
			return err
		}
	}
	return ours.stop()
}

func (s shape) flood(publish func(ctx context.Context, topic int) error) func(context.Context, time.Duration) (float64, error) {
	return func(ctx context.Context, length time.Duration) (float64, error) {
		return flood(ctx, s.publishers, length, func(ctx context.Context, i int) error { return publish(ctx, i%s.topics) })
	}
}

func (e *engine) publish(ctx context.Context, topic int) error {
	_, err := e.PublishMessages(ctx, fleet.Operator, topicName(topic), []broker.Message{{Data: make([]byte, size)}})
	return err
}

func (r *raw) publish(ctx context.Context, topic int) error {
	_, err := r.Publish(ctx, "raw."+topicName(topic), make([]byte, size))
	return err
}

// front is the NATS listener of the real binary: JetStream's clients publish there as they do to JetStream.
type front struct {
	jetstream.JetStream
	stop func()
}

func startFront(ctx context.Context, dir string) (*front, error) {
	f, err := startFleet(ctx, dir)
	if err != nil {
		return nil, err
	}
	env, err := f.Env(ctx)
	if err != nil {
		f.Stop()
		return nil, err
	}
	conn, err := nats.Connect(env["NATS_URL"])
	if err != nil {
		f.Stop()
		return nil, fmt.Errorf("NATS at %s: %w", env["NATS_URL"], err)
	}
	out := &front{stop: func() { conn.Close(); f.Stop() }}
	if out.JetStream, err = jetstream.New(conn); err != nil {
		out.stop()
		return nil, err
	}
	return out, nil
}

func (f *front) publish(ctx context.Context, topic int) error {
	_, err := f.Publish(ctx, topicName(topic), make([]byte, size))
	return err
}
