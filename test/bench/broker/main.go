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
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"time"
)

type options struct {
	role    string
	address string
	dir     string
	rounds  int
	time    time.Duration
	only    string
	profile string
	rows    string
}

func main() {
	runtime.LockOSThread() // children end with the thread that started them: this one
	var o options
	flag.StringVar(&o.role, "role", "", "for its own use: what a process is")
	flag.StringVar(&o.address, "address", "", "for its own use")
	flag.StringVar(&o.dir, "dir", "", "for its own use")
	flag.IntVar(&o.rounds, "rounds", 5, "measurements of each side")
	flag.DurationVar(&o.time, "time", 3*time.Second, "length of a measurement; at most 30s")
	flag.StringVar(&o.only, "only", "", "measure only the parts whose names contain this")
	flag.StringVar(&o.profile, "profile", "", "write CPU profiles of our processes into this folder")
	flag.StringVar(&o.rows, "rows", "", "add the figures to the list in this JSON file")
	flag.Parse()
	o.time = min(o.time, 30*time.Second)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "broker:", err)
		os.Exit(1)
	}
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
	return bench(ctx, o)
}

// part is one of the measures, with files and processes that end with it.
type part struct {
	name    string
	measure func(ctx context.Context, o options) error
}

var parts = []part{
	{"fsync", fsync},
	{"disk publish", diskPublish},
	{"batches", batches},
	{"streaming", streaming},
	{"push", push},
	{"idle", idle},
	{"schedule", schedule},
}

// bench runs all parts, also where one of them cannot be measured.
func bench(ctx context.Context, o options) error {
	var errs []error
	for _, p := range parts {
		if !strings.Contains(p.name, o.only) || ctx.Err() != nil {
			continue
		}
		if err := p.run(ctx, o); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	return errors.Join(errs...)
}

// run gives a part a folder of its own, and ends what it starts.
func (p part) run(ctx context.Context, o options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	if o.dir, err = os.MkdirTemp("", "bb"); err != nil { // short: sockets are in it
		return err
	}
	defer os.RemoveAll(o.dir)
	if err := os.Chmod(o.dir, 0o755); err != nil { // an application may be another user
		return err
	}
	return p.measure(ctx, o)
}
