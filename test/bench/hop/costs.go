package main

import (
	"context"
	"errors"
	"os"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// at is what is offered, and what Shoal may cost at each rate, as a part of HAProxy's cost.
func at(saturation, often, seldom float64) []harness.Rate {
	return []harness.Rate{{PerSecond: 0, Goal: saturation}, {PerSecond: 8000, Goal: often}, {PerSecond: 2000, Goal: seldom}}
}

// http1 compares with httputil.ReverseProxy, too, which gateways in Go are made of.
func http1(ctx context.Context, o options, name, dir string) error {
	server, err := harness.StartUpstream(ctx, "http")
	if err != nil {
		return err
	}
	ours, err := ourSide(ctx, o, name, server, "http")
	if err != nil {
		return err
	}
	reverse, err := harness.StartSide(ctx, "ReverseProxy", 1, os.Args[0], "-role", "reverse", "-upstream", server)
	if err != nil {
		return err
	}
	sides, err := withHAProxy(ctx, dir, server, "http", 4000, ours, reverse)
	if err != nil {
		return err
	}
	rates := at(0.95, 0.95, 0.85)
	err = compare(ctx, o, name, rates, sides, harness.HTTP1(64))
	return errors.Join(err, rows.Save(o.Rows, harness.Costs(name+", beside httputil.ReverseProxy", at(0, 0, 0), sides, "shoal", "ReverseProxy")...))
}

func http2(connections, streams int, goal float64) func(context.Context, options, string, string) error {
	return func(ctx context.Context, o options, name, dir string) error {
		return ends(ctx, o, name, dir, "http2", goal, harness.HTTP2(connections, streams))
	}
}

// unary has a real client and a real server: grpc-go's.
func unary(ctx context.Context, o options, name, dir string) error {
	return ends(ctx, o, name, dir, "grpc", 0.9, harness.GRPC(8, 16))
}

// ends compares with HTTP/2 on both sides.
func ends(ctx context.Context, o options, name, dir, protocol string, goal float64, load harness.Load) error {
	server, err := harness.StartUpstream(ctx, protocol)
	if err != nil {
		return err
	}
	ours, err := ourSide(ctx, o, name, server, protocol)
	if err != nil {
		return err
	}
	sides, err := withHAProxy(ctx, dir, server, protocol, 4000, ours)
	if err != nil {
		return err
	}
	return compare(ctx, o, name, at(goal, goal, goal), sides, load)
}

// compare measures the CPU time of all sides, and reports that of ours beside HAProxy's.
func compare(ctx context.Context, o options, name string, rates []harness.Rate, sides []*harness.Side, load harness.Load) error {
	err := harness.MeasureAll(ctx, o.Rounds, o.Time, rates, sides, load)
	harness.Report(os.Stdout, name, rates, sides, "shoal", "haproxy")
	harness.Stop(sides[0].Processes, o.Profile)
	return errors.Join(err, rows.Save(o.Rows, harness.Costs(name, rates, sides, "shoal", "haproxy")...))
}
