package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// The chain of two HAProxies. Both share connections among clients (http-reuse always) and keep many; what
// goes between them is HTTP/2 on few connections, by TLS 1.3 in which each side verifies the other, or in
// plaintext. Each pair of services has certificates of its own, as sidecars do.
const haproxyHead = `global
  nbthread 2
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
  tune.bufsize 32768
defaults
  mode %s
  timeout connect 5s
  timeout client 300s
  timeout server 60s
%s`

const haproxyHTTP = `  timeout http-keep-alive 300s
  http-reuse always
`

// haproxySide is one of the two: from address to server, with what follows the words bind and server.
func haproxySide(name, address, bind, server, options string) string {
	return fmt.Sprintf("frontend f%[1]s\n  bind %[2]s %[3]s\n  default_backend b%[1]s\nbackend b%[1]s\n  server s %[4]s pool-max-conn 1000 %[5]s\n",
		name, address, bind, server, options)
}

func (p part) haproxy(ctx context.Context, dir, upstream string) (*harness.Side, error) {
	return haproxies(ctx, dir, upstream, p.pairs, "http", p.http2, p.tls)
}

func haproxies(ctx context.Context, dir, upstream string, pairs int, mode string, http2, tls bool) (*harness.Side, error) {
	ins, outs := addresses(pairs), addresses(pairs)
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
	more := ""
	if mode == "http" {
		more = haproxyHTTP
	}
	a := fmt.Sprintf(haproxyHead, mode, more)
	b := a
	for i := range pairs {
		name, to := fmt.Sprint(i), between
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
		a += haproxySide(name, outs[i], ends, ins[i], to)
		b += haproxySide(name, ins[i], accept, upstream, ends)
	}
	second, err := harness.HAProxy(ctx, dir, ins[0], b)
	if err != nil {
		return nil, err
	}
	first, err := harness.HAProxy(ctx, dir, outs[0], a)
	return harness.NewSide("haproxy", strings.Join(outs, ","), first, second), err
}
