// Hop measures what one hop through the data path costs, against HAProxy in the same run, on the same
// machine, with the same clients and the same server: CPU microseconds of the proxy process per request, in
// HTTP/1.1, HTTP/2 and gRPC; what it adds to the time of an answer; the memory of connections that wait; and
// what many routes cost it. Rounds are interleaved, since machines are noisy; medians are compared.
//
//	test/bench/run.sh hop [-only PART] [-rounds 5] [-time 3s] [-profile DIR] [-rows FILE]
//
// It starts copies of itself for the parts that must be processes of their own, talks to loopback only,
// and ends by itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
)

type options struct {
	proxyOptions
	role        string
	rounds      int
	runs        int
	connections int
	time        time.Duration
	only        string
	profile     string
	rows        string
}

func main() {
	runtime.LockOSThread() // children end with the thread that started them: this one
	var o options
	o.define()
	flag.StringVar(&o.role, "role", "", "for its own use: proxy, reverse or upstream")
	flag.IntVar(&o.rounds, "rounds", 5, "measurements of each proxy at each rate")
	flag.IntVar(&o.runs, "runs", 15, "measurements of each side's added latency")
	flag.IntVar(&o.connections, "connections", 10_000, "connections that wait, where their memory is measured; at most 10000")
	flag.DurationVar(&o.time, "time", 3*time.Second, "length of a measurement; at most 30s")
	flag.StringVar(&o.only, "only", "", "measure only the parts whose names contain this")
	flag.StringVar(&o.profile, "profile", "", "write CPU profiles of our processes into this folder")
	flag.StringVar(&o.rows, "rows", "", "add the figures to the list in this JSON file")
	flag.Parse()
	o.time, o.connections = min(o.time, 30*time.Second), min(o.connections, 10_000)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "hop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	switch o.role {
	case "proxy":
		return runProxy(ctx, o)
	case "reverse":
		return runReverse(ctx, o)
	case "upstream":
		return harness.Upstream(ctx, o.listen, o.protocol)
	}
	return bench(ctx, o)
}

// part is one of the measures, in processes that end with it.
type part struct {
	name    string
	measure func(ctx context.Context, o options, name, dir string) error
}

var parts = []part{
	{"HTTP/1.1, one hop", http1},
	{"HTTP/2, one hop, 8x16", http2(8, 16, 0.7)},
	{"HTTP/2, one hop, 64x1", http2(64, 1, 0.95)},
	{"gRPC unary, one hop", unary},
	{"added latency at half of saturation", latency},
	{"idle keep-alive connection", memory},
	{"5,000 routes with churn", routes},
}

func bench(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "hop")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, p := range parts {
		if !strings.Contains(p.name, o.only) {
			continue
		}
		if err := within(ctx, func(ctx context.Context) error { return p.measure(ctx, o, p.name, dir) }); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// within ends what do starts.
func within(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return do(ctx)
}
