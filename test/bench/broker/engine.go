package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// engine is the broker in this process, with what is on by default in the hub.
type engine struct {
	*broker.Broker
	stop func() error // ends it in order
}

func startEngine(ctx context.Context, dir string) (*engine, error) {
	recorder := observe.New(observe.Config{})
	b, err := broker.New(broker.Config{Dir: filepath.Join(dir, "engine"), Observe: recorder.Record})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	return &engine{b, func() error {
		cancel()
		return <-ended
	}}, nil
}

// topics is how many there are where there are many.
const topics = 64

// makeTopics makes as many topics, t0 and so on.
func (e *engine) makeTopics(ctx context.Context, n int) error {
	for i := range n {
		if _, err := e.CreateTopic(ctx, fleet.Operator, broker.TopicConfig{Name: topicName(i)}); err != nil {
			return err
		}
	}
	return nil
}

func topicName(i int) string { return fmt.Sprintf("t%d", i) }
