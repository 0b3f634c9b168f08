package main

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// latency measures what a hop adds to the time of an answer, beside asking the server itself, at half of
// what goes through the slower of the two proxies. The loop is open: requests are due at their times, and
// answers are counted from there. Each run's difference is taken within its round.
func latency(ctx context.Context, o options, name, dir string) error {
	server, err := harness.StartUpstream(ctx, "http")
	if err != nil {
		return err
	}
	ours, err := ourSide(ctx, o, name, server, "http")
	if err != nil {
		return err
	}
	proxies, err := withHAProxy(ctx, dir, server, "http", 4000, ours)
	if err != nil {
		return err
	}
	load := harness.HTTP1(64)
	if err := harness.MeasureAll(ctx, 3, o.Time, []harness.Rate{{}}, proxies, load); err != nil {
		return err
	}
	half := proxies[0].Throughput(0) / 2
	for _, s := range proxies[1:] {
		half = min(half, s.Throughput(0)/2)
	}
	direct := harness.NewSide("direct", server)
	rates := []harness.Rate{{PerSecond: half, Open: true}}
	if err := harness.MeasureAll(ctx, o.runs, o.Time, rates, append([]*harness.Side{direct}, proxies...), load); err != nil {
		return err
	}
	harness.Stop(ours.Processes, o.Profile)
	return rows.Save(o.Rows, reportLatency(name, half, direct, proxies)...)
}

// reportLatency prints every side's median and spread, and returns rows: p50 with its goal, p99 with its spread.
func reportLatency(name string, rate int, direct *harness.Side, proxies []*harness.Side) []rows.Row {
	fmt.Printf("\n%s (%d/s), µs, beside direct calls: median [min-max] of %d runs\n\n", name, rate, len(direct.Results[rate]))
	p50 := func(r harness.Result) time.Duration { return r.P50 }
	p99 := func(r harness.Result) time.Duration { return r.P99 }
	for _, s := range proxies {
		fmt.Printf("%-10s p50 %s  p99 %s\n", s.Name, spreadOf(s.Added(direct, rate, p50)), spreadOf(s.Added(direct, rate, p99)))
	}
	figures := func(percentile string, of func(harness.Result) time.Duration, percent int) rows.Row {
		r := rows.Row{Row: name + ", " + percentile, Unit: "µs", Ours: micros(harness.Percentile(proxies[0].Added(direct, rate, of), percent))}
		if len(proxies) == 1 {
			r.Skipped = harness.Without("haproxy")
		} else {
			r.Peer = micros(harness.Percentile(proxies[1].Added(direct, rate, of), percent))
		}
		if r.Ours > 0 && r.Peer > 0 { // else it was other work that was measured
			r.Ratio = r.Ours / r.Peer
		}
		return r
	}
	median := figures("p50", p50, 50)
	if median.Ratio > 0 {
		median.Sense, median.Goal = "<=", 1
	}
	return []rows.Row{median, figures("p99", p99, 50), figures("p99 of the best run", p99, 0), figures("p99 of the worst run", p99, 100)}
}

func spreadOf(sorted []time.Duration) string {
	return fmt.Sprintf("%.0f [%.0f-%.0f]", micros(harness.Percentile(sorted, 50)), micros(sorted[0]), micros(sorted[len(sorted)-1]))
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
