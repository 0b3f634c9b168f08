package main

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// settled is how long a proxy is left alone before its memory is read. Ours parks a connection after three
// seconds without a request.
const settled = 10 * time.Second

// warm is how long a proxy works before, which fills the records of past calls.
const warm = 3 * time.Second

// memory measures what a kept-alive connection that has had one request occupies in the proxy's process
// (resident memory; the kernel's part, which is the same for all, is not in it).
func memory(ctx context.Context, o options, name, dir string) error {
	server, err := harness.StartUpstream(ctx, "http")
	if err != nil {
		return err
	}
	ours, err := ourSide(ctx, o, name, server, "http")
	if err != nil {
		return err
	}
	sides, err := withHAProxy(ctx, dir, server, "http", o.connections+100, ours)
	if err != nil {
		return err
	}
	var each []float64
	for _, s := range sides {
		kilobytes, err := waiting(ctx, s, o.connections)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		fmt.Printf("\n%s, %d of them, %s: %.2f KB\n", name, o.connections, s.Name, kilobytes)
		each = append(each, kilobytes)
	}
	harness.Stop(ours.Processes, o.Profile)
	name = fmt.Sprintf("%s, %d of them", name, o.connections)
	beside := rows.Row{Row: name + ", beside HAProxy", Ours: each[0], Unit: "KB"}
	if len(each) == 1 {
		beside.Skipped = harness.Without("haproxy")
	} else {
		beside.Sense, beside.Goal, beside.Ratio, beside.Peer = "<=", 0.5, each[0]/each[1], each[1]
	}
	return rows.Save(o.Rows, rows.Row{Row: name, Sense: "<=", Goal: 4, Ours: each[0], Unit: "KB"}, beside)
}

// waiting is how many kilobytes each of n connections adds to a proxy that has worked before, so that it has
// all that it keeps whoever is connected: records of past calls, buffers.
func waiting(ctx context.Context, s *harness.Side, n int) (float64, error) {
	if _, err := harness.HTTP1(64)(ctx, s.Address, time.Now().Add(warm), harness.Rate{}); err != nil {
		return 0, err
	}
	before, err := residentWith(ctx, s, 64)
	if err != nil {
		return 0, err
	}
	after, err := residentWith(ctx, s, n)
	return float64(after-before) / 1024 / float64(n), err
}

// residentWith is the memory of a proxy while n connections wait.
func residentWith(ctx context.Context, s *harness.Side, n int) (int, error) {
	closeAll, err := harness.Idle(s.Address, n)
	defer closeAll()
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(settled):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return s.Resident()
}
