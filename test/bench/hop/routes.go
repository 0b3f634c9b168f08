package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// called is how many services are called, on both sides, so that both have the same connections.
const called = 5

// routes compares a thousand services with five routes each, one of which changes every second, with five
// services of one route. The same five services are called.
func routes(ctx context.Context, o options, name, _ string) error {
	server, err := upstream(ctx, "http")
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
	if err := harness.MeasureAll(ctx, o.rounds, o.time, rates, sides, harness.HTTP1(64)); err != nil {
		return err
	}
	harness.Report(os.Stdout, name, rates, sides, many.Name, few.Name)
	more, err := megabytesMore(many, few)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %.1f MB more\n", name, more)
	harness.Stop(append(many.Processes, few.Processes...), o.profile)
	all := harness.Costs(name+", CPU", rates, sides, many.Name, few.Name)
	all = append(all, rows.Row{Row: name + ", memory", Sense: "<=", Goal: 40, Ours: more, Unit: "MB"})
	for _, rate := range rates[1:] {
		tail := rows.Row{Row: fmt.Sprintf("%s, p99, %s", name, rate), Sense: "<=", Goal: 1.1, Ours: many.Tail(rate.PerSecond), Peer: few.Tail(rate.PerSecond), Unit: "µs"}
		tail.Ratio = tail.Ours / tail.Peer
		all = append(all, tail)
	}
	return rows.Save(o.rows, all...)
}

// routed starts a proxy of ours with so many services and routes; the first few services are called.
func routed(ctx context.Context, o options, name, server string, services, routes int, churn time.Duration) (*harness.Side, error) {
	var addresses []string
	for range called {
		addresses = append(addresses, harness.FreeAddress())
	}
	listen := strings.Join(addresses, ",")
	c, err := harness.Start(ctx, addresses[0], os.Args[0], "-role", "proxy", "-listen", listen, "-upstream", server,
		"-services", strconv.Itoa(services), "-routes", strconv.Itoa(routes), "-churn", churn.String(),
		"-profile", harness.ProfileName(o.profile, name, "proxy"))
	return harness.NewSide(name, listen, c), err
}

func megabytesMore(many, few *harness.Side) (float64, error) {
	a, err := many.Resident()
	if err != nil {
		return 0, err
	}
	b, err := few.Resident()
	return float64(a-b) / 1e6, err
}
