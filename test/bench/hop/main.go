// Hop measures what one hop through the data path costs: CPU microseconds of the proxy process per
// HTTP/1.1 request, against HAProxy in the same run, on the same machine, with the same clients and the
// same server, and the time that an answer takes, against asking the server directly. Rounds are interleaved, since machines are noisy; medians are compared.
//
//	test/bench/run.sh hop [-rounds 5] [-time 3s] [-profile cpu.out] [-rows FILE]
//
// It starts copies of itself for the parts that must be processes of their own, talks to loopback only,
// and ends by itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

type options struct {
	role     string
	listen   string
	upstream string
	rounds   int
	time     time.Duration
	conns    int
	profile  string
	rows     string
}

func main() {
	runtime.LockOSThread() // children end with the thread that started them: this one
	var o options
	flag.StringVar(&o.role, "role", "", "for its own use: proxy or upstream")
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "for its own use")
	flag.StringVar(&o.upstream, "upstream", "", "for its own use")
	flag.IntVar(&o.rounds, "rounds", 5, "measurements of each proxy at each rate")
	flag.DurationVar(&o.time, "time", 3*time.Second, "length of a measurement; at most 30s")
	flag.IntVar(&o.conns, "connections", 64, "client connections")
	flag.StringVar(&o.profile, "profile", "", "write a CPU profile of the proxy to this file")
	flag.StringVar(&o.rows, "rows", "", "add the figures to the list in this JSON file")
	flag.Parse()
	o.time = min(o.time, 30*time.Second)
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
	case "upstream":
		return runUpstream(ctx, o.listen)
	}
	return bench(ctx, o)
}

// rates are what is offered, and what Shoal may cost at each, as a part of HAProxy's cost.
var rates = []harness.Rate{{PerSecond: 0, Goal: 0.95}, {PerSecond: 8000, Goal: 0.95}, {PerSecond: 2000, Goal: 0.85}}

const title = "HTTP/1.1, one hop"

func bench(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "hop")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	upstream, shoal, haproxy := harness.FreeAddress(), harness.FreeAddress(), harness.FreeAddress()
	if _, err := harness.Start(ctx, upstream, os.Args[0], "-role", "upstream", "-listen", upstream); err != nil {
		return err
	}
	p, err := harness.Start(ctx, shoal, os.Args[0], "-role", "proxy", "-listen", shoal, "-upstream", upstream, "-profile", o.profile)
	if err != nil {
		return err
	}
	sides := []*harness.Side{harness.NewSide("direct", upstream), harness.NewSide("shoal", shoal, p)}
	if h, err := harness.HAProxy(ctx, dir, haproxy, fmt.Sprintf(haproxyConfig, haproxy, upstream)); err != nil {
		fmt.Println("without HAProxy:", err)
	} else {
		sides = append(sides, harness.NewSide("haproxy", haproxy, h))
	}
	if err := harness.MeasureAll(ctx, o.rounds, o.time, rates, sides, harness.HTTP1(o.conns)); err != nil {
		return err
	}
	harness.Report(os.Stdout, title, rates, sides, "shoal", "haproxy")
	measured := append(harness.Costs(title, rates, sides, "shoal", "haproxy"), latencies(sides)...)
	if err := rows.Save(o.rows, measured...); err != nil {
		return err
	}
	return stopProfiled(p, o.profile)
}

// latencies are the times of an answer, beside a direct one; as many as go through are not as many for
// both.
func latencies(sides []*harness.Side) (all []rows.Row) {
	ours, direct := harness.Named(sides, "shoal"), harness.Named(sides, "direct")
	for _, rate := range rates {
		if rate.PerSecond == 0 {
			continue
		}
		took := rows.Row{
			Row: "p50 of an answer, " + rate.String() + ", beside a direct call", Unit: "µs",
			Ours: ours.Latency(rate.PerSecond), Peer: direct.Latency(rate.PerSecond),
		}
		took.Ratio = took.Ours / took.Peer
		all = append(all, took)
	}
	return all
}

const haproxyConfig = `global
  nbthread 2
  maxconn 9800
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  timeout http-keep-alive 300s
  http-reuse always
frontend f
  bind %s
  default_backend b
backend b
  server s %s pool-max-conn 1000
`

// stopProfiled lets the proxy write its profile.
func stopProfiled(c *exec.Cmd, profile string) error {
	if profile == "" {
		return nil
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	return c.Wait()
}
