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
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// options has what a process is told that this program starts, too.
type options struct {
	harness.Options
	role        string
	upstream    string
	protocol    string
	listeners   int
	services    int
	routes      int
	churn       time.Duration
	runs        int
	connections int
}

func main() {
	var o options
	o.Define()
	flag.StringVar(&o.role, "role", "", "for its own use: proxy, reverse or upstream")
	flag.StringVar(&o.upstream, "upstream", "", "for its own use")
	flag.StringVar(&o.protocol, "protocol", "http", "for its own use: http, http2 or grpc")
	flag.IntVar(&o.listeners, "listeners", 1, "for its own use: how many services are called")
	flag.IntVar(&o.services, "services", 1, "for its own use: services of the snapshot")
	flag.IntVar(&o.routes, "routes", 0, "for its own use: routes of each service")
	flag.DurationVar(&o.churn, "churn", 0, "for its own use: how often a route of a service changes; 0: never")
	flag.IntVar(&o.runs, "runs", 15, "measurements of each side's added latency")
	flag.IntVar(&o.connections, "connections", 10_000, "connections that wait, where their memory is measured")
	harness.Main("hop", func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	switch o.role {
	case "proxy":
		return runProxy(ctx, o)
	case "reverse":
		return runReverse(ctx, o)
	case "upstream":
		return harness.RunUpstream(ctx, o.protocol)
	}
	return o.Run(ctx, parts(o))
}

func parts(o options) []harness.Part {
	part := func(name string, measure func(context.Context, options, string, string) error) harness.Part {
		return harness.Part{Name: name, Measure: func(ctx context.Context, dir string) error { return measure(ctx, o, name, dir) }}
	}
	return []harness.Part{
		part("HTTP/1.1, one hop", http1),
		part("HTTP/2, one hop, 8x16", http2(8, 16, 0.7)),
		part("HTTP/2, one hop, 64x1", http2(64, 1, 0.95)),
		part("gRPC unary, one hop", unary),
		part("added latency at half of saturation", latency),
		part("idle keep-alive connection", memory),
		part("5,000 routes with churn", routes),
	}
}
