package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// called is how many services are called, on both sides, so that both have the same connections.
const called = 5

// routes compares a thousand services with five routes each, one of which changes every second, with five
// services of one route. The same five services are called.
func routes(ctx context.Context, o options, name, _ string) error {
	server, err := harness.StartUpstream(ctx, "http")
	if err != nil {
		return err
	}
	many, err := routed(ctx, o, "5,000 routes", server, 1000, 5, time.Second)
	if err != nil {
		return err
	}
	few, err := routed(ctx, o, "5 routes", server, called, 1, 0)
	if err != nil {
		return err
	}
	sides, rates := []*harness.Side{many, few}, at(1.1, 1.1, 1.1)
	for i := range rates {
		rates[i].Open = rates[i].PerSecond > 0
	}
	failed := harness.MeasureAll(ctx, o.Rounds, o.Time, rates, sides, harness.HTTP1(64))
	harness.Report(os.Stdout, name, rates, sides, many.Name, few.Name)
	more, err := megabytesMore(many, few)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %.1f MB more\n", name, more)
	harness.Stop(append(many.Processes, few.Processes...), o.Profile)
	all := harness.Costs(name+", CPU", rates, sides, many.Name, few.Name)
	all = append(all, rows.Row{Row: name + ", memory", Sense: "<=", Goal: 40, Ours: more, Unit: "MB"})
	for _, rate := range rates[1:] {
		if len(many.Results[rate.PerSecond]) == 0 {
			continue
		}
		tail := rows.Row{Row: fmt.Sprintf("%s, p99, %s", name, rate), Sense: "<=", Goal: 1.1, Ours: many.Tail(rate.PerSecond), Peer: few.Tail(rate.PerSecond), Unit: "µs"}
		tail.Ratio = tail.Ours / tail.Peer
		all = append(all, tail)
	}
	return errors.Join(failed, rows.Save(o.Rows, all...))
}

// routed starts a proxy of ours with so many services and routes; the first few services are called.
func routed(ctx context.Context, o options, name, server string, services, routes int, churn time.Duration) (*harness.Side, error) {
	return harness.StartSide(ctx, name, called, os.Args[0], "-role", "proxy", "-listeners", strconv.Itoa(called), "-upstream", server,
		"-services", strconv.Itoa(services), "-routes", strconv.Itoa(routes), "-churn", churn.String(),
		"-profile", harness.ProfileName(o.Profile, name, "proxy"))
}

func megabytesMore(many, few *harness.Side) (float64, error) {
	a, err := many.Resident()
	if err != nil {
		return 0, err
	}
	b, err := few.Resident()
	return float64(a-b) / 1e6, err
}
