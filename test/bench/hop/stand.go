package main

import (
	"context"
	"fmt"
	"os"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// upstream starts a server and returns its address.
func upstream(ctx context.Context, protocol string) (string, error) {
	address := harness.FreeAddress()
	_, err := harness.Start(ctx, address, os.Args[0], "-role", "upstream", "-listen", address, "-protocol", protocol)
	return address, err
}

// ourSide starts a proxy of ours before a server.
func ourSide(ctx context.Context, o options, measure, server, protocol string) (*harness.Side, error) {
	address := harness.FreeAddress()
	c, err := harness.Start(ctx, address, os.Args[0], "-role", "proxy", "-listen", address, "-upstream", server,
		"-protocol", protocol, "-profile", harness.ProfileName(o.profile, measure, "proxy"))
	return harness.NewSide("shoal", address, c), err
}

// withHAProxy adds HAProxy before the same server; where it cannot run, that is said.
// maxconn is how many connections it takes.
func withHAProxy(ctx context.Context, dir, server, protocol string, maxconn int, sides ...*harness.Side) []*harness.Side {
	options := ""
	if protocol != "http" {
		options = "proto h2"
	}
	address := harness.FreeAddress()
	c, err := harness.HAProxy(ctx, dir, address, harness.HAProxyHead("http", maxconn)+harness.HAProxySide("0", address, options, server, options))
	if err != nil {
		fmt.Println("without HAProxy:", err)
		return sides
	}
	return append(sides, harness.NewSide("haproxy", address, c))
}
