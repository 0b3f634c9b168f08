package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// haproxies makes the chain of two: what goes between them is HTTP/2 on few connections, by TLS 1.3 in which
// each side verifies the other, or in plaintext. Each pair of services has certificates of its own, as
// sidecars do.
func haproxies(ctx context.Context, dir, upstream string, pairs int, mode string, http2, tls bool) (*harness.Side, error) {
	if err := makeCertificates(dir); err != nil {
		return nil, err
	}
	ins, err := harness.Listen(pairs)
	if err != nil {
		return nil, err
	}
	outs, err := harness.Listen(pairs)
	if err != nil {
		return nil, err
	}
	side := harness.NewSide("haproxy", outs.String())
	ends, between, verified := "", "", ""
	if http2 {
		ends = "proto h2"
	}
	if mode == "http" {
		between = "proto h2"
	}
	keys, ca := filepath.Join(dir, "client.pem"), filepath.Join(dir, "ca.pem")
	if tls {
		between, verified = "", fmt.Sprintf("ssl crt %s ca-file %s verify required", filepath.Join(dir, "b.pem"), ca)
	}
	a := harness.HAProxyHead(mode, 4000)
	b := a
	for i := range pairs {
		to := between
		if tls {
			to = fmt.Sprintf("ssl crt %s ca-file %s verify required verifyhost b", keys, ca)
			if mode == "http" {
				to += " alpn h2"
			}
		}
		accept := between
		if tls {
			if accept = verified; mode == "http" {
				accept += " alpn h2"
			}
		}
		a += harness.HAProxyWay(i, ends, ins[i].Addr().String(), to)
		b += harness.HAProxyWay(i, accept, upstream, ends)
	}
	second, err := harness.HAProxy(ctx, dir, ins, b)
	if err != nil {
		return nil, err
	}
	first, err := harness.HAProxy(ctx, dir, outs, a)
	side.Processes = []*exec.Cmd{first, second}
	return side, err
}
