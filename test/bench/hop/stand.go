package main

import (
	"context"
	"os"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// ourSide starts a proxy of ours before a server.
func ourSide(ctx context.Context, o options, measure, server, protocol string) (*harness.Side, error) {
	return harness.StartSide(ctx, "shoal", 1, os.Args[0], "-role", "proxy", "-upstream", server,
		"-protocol", protocol, "-profile", harness.ProfileName(o.Profile, measure, "proxy"))
}

// withHAProxy adds HAProxy before the same server, where it is installed. maxconn is how many connections it takes.
func withHAProxy(ctx context.Context, dir, server, protocol string, maxconn int, sides ...*harness.Side) ([]*harness.Side, error) {
	if _, err := harness.Installed("haproxy"); err != nil {
		return sides, nil
	}
	options := ""
	if protocol != "http" {
		options = "proto h2"
	}
	s, err := harness.OneHAProxy(ctx, dir, "http", maxconn, server, options)
	return append(sides, s), err
}
