package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	{64, topics, "disk publish, 64 publishers, 64 topics", 2.5},
	{512, 1, "disk publish, 512 publishers, one topic", 20},
}

// diskPublish compares what publishers get who are in the broker's process with raw JetStream (SyncAlways) in theirs: the faster of one stream for all
// topics and a stream for each. Beside it stands what the same publishers get by NATS from the real binary.
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
	if err := ours.makeTopics(ctx, topics); err != nil {
		return err
	}
	stop, err := harness.Profile(harness.ProfileName(o.Profile, "disk publish", "engine"))
	if err != nil {
		return err
	}
	defer stop()
	var errs []error
	for _, shape := range shapes {
		errs = append(errs, shape.besideJetStream(ctx, o, ours, peer, front))
		if shape.topics == 1 {
			errs = append(errs, shape.besideRedis(ctx, o, front))
		}
	}
	return errors.Join(append(errs, ours.stop())...)
}

func (s shape) besideJetStream(ctx context.Context, o options, ours *engine, peer *raw, front *front) error {
	sides := []side{
		{"shoal, in process", s.flood(ours.publish)}, {"shoal's binary, by NATS", s.flood(front.publish)}, {"JetStream, in process", s.flood(peer.publishShared)},
	}
	if s.topics > 1 {
		sides = append(sides, side{"JetStream, a stream each", s.flood(peer.publishOwn)})
	}
	m, err := alternate(ctx, o, s.name, sides)
	if err != nil {
		return err
	}
	fastest := slices.Max(m[2:])
	return rows.Save(o.Rows, beside(s.name, s.goal, m[0], fastest), beside(s.name+", the binary by NATS", 0, m[1], fastest))
}

// besideRedis compares two servers that their clients reach by TCP.
func (s shape) besideRedis(ctx context.Context, o options, front *front) error {
	name := s.name + ", the binary by NATS, beside Redis Streams"
	sides := []side{{"shoal's binary, by NATS", s.flood(front.publish)}}
	if _, err := harness.Installed(redisProgram); err == nil {
		r, err := startRedis(ctx, o.dir, s.publishers)
		if err != nil {
			return err
		}
		defer r.close()
		sides = append(sides, side{"Redis, appendfsync always", func(ctx context.Context, length time.Duration) (float64, error) {
			return flood(ctx, s.publishers, length, r.publish)
		}})
	}
	m, err := alternate(ctx, o, name, sides)
	if err != nil {
		return err
	}
	if len(m) == 1 {
		return rows.Save(o.Rows, alone(name, m[0], redisProgram))
	}
	return rows.Save(o.Rows, beside(name, 0, m[0], m[1]))
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

func (r *raw) publishShared(ctx context.Context, topic int) error {
	_, err := r.Publish(ctx, "shared."+topicName(topic), make([]byte, size))
	return err
}

func (r *raw) publishOwn(ctx context.Context, topic int) error {
	_, err := r.Publish(ctx, "own."+topicName(topic), make([]byte, size))
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
