// Broker measures topics and subscriptions: how many messages a second are made durable, beside raw JetStream and beside RabbitMQ; how
// many come through the official client's streams, beside raw JetStream; how long one takes from its publish to its delivery; and what
// very many topics, subscriptions and scheduled messages occupy. Sides take turns, and medians are compared.
//
//	test/bench/run.sh broker [-only PART] [-rounds 5] [-time 3s] [-profile DIR] [-rows FILE]
//
// All files lie in one temporary folder (TMPDIR), so that all sides write to one disk. It needs bin/shoal, talks to loopback only, and
// ends by itself.
package main

import (
	"context"
	"flag"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// options has what a process is told that this program starts, too.
type options struct {
	harness.Options
	role    string
	address string
	dir     string
}

func main() {
	var o options
	o.Define()
	flag.StringVar(&o.role, "role", "", "for its own use: what a process is")
	flag.StringVar(&o.address, "address", "", "for its own use")
	flag.StringVar(&o.dir, "dir", "", "for its own use")
	harness.Main("broker", func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	switch o.role {
	case "sink":
		return runSink(ctx, o)
	case "source":
		return runSource(ctx, o)
	case "fill":
		return runFill(ctx, o)
	case "scheduled":
		return runDue(ctx, o)
	case "jetstream":
		return runServer(ctx, o)
	case "waiter":
		<-ctx.Done()
		return nil
	}
	return o.Run(ctx, parts(o))
}

func parts(o options) []harness.Part {
	part := func(name string, measure func(context.Context, options) error) harness.Part {
		return harness.Part{Name: name, Measure: func(ctx context.Context, dir string) error {
			o.dir = dir
			return measure(ctx, o)
		}}
	}
	return []harness.Part{
		part("fsync", fsync),
		part("disk publish", diskPublish),
		part("batches", batches),
		part("streaming", streaming),
		part("push", push),
		part("idle", idle),
		part("schedule", schedule),
	}
}
