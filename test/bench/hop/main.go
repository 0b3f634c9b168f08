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
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

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

// side is one of the ways to the server that are compared.
type side struct {
	name    string
	address string
	process *exec.Cmd        // the proxy; nil: there is none
	results map[int][]result // by rate
}

// rates are requests a second in all, 0 being as many as go through, and what Shoal may cost at each,
// as a part of HAProxy's cost.
var rates = []struct {
	perSecond int
	goal      float64
}{{0, 0.95}, {8000, 0.95}, {2000, 0.85}}

func bench(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "hop")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	upstream, shoal, haproxy := freeAddress(), freeAddress(), freeAddress()
	if _, err := start(ctx, upstream, os.Args[0], "-role", "upstream", "-listen", upstream); err != nil {
		return err
	}
	p, err := start(ctx, shoal, os.Args[0], "-role", "proxy", "-listen", shoal, "-upstream", upstream, "-profile", o.profile)
	if err != nil {
		return err
	}
	sides := []*side{
		{name: "direct", address: upstream, results: map[int][]result{}},
		{name: "shoal", address: shoal, process: p, results: map[int][]result{}},
	}
	if h, err := startHAProxy(ctx, dir, haproxy, upstream); err != nil {
		fmt.Println("without HAProxy:", err)
	} else {
		sides = append(sides, &side{name: "haproxy", address: haproxy, process: h, results: map[int][]result{}})
	}
	if err := measureAll(ctx, o, sides); err != nil {
		return err
	}
	report(os.Stdout, sides)
	if err := rows.Save(o.rows, measured(sides)...); err != nil {
		return err
	}
	return stopProfiled(p, o.profile)
}

func measureAll(ctx context.Context, o options, sides []*side) error {
	for _, of := range rates {
		rate := of.perSecond
		for round := range o.rounds + 1 {
			for _, s := range sides {
				r, err := measure(ctx, o, s, rate)
				if err != nil {
					return fmt.Errorf("%s at %d/s: %w", s.name, rate, err)
				}
				if round > 0 { // the first warms up
					s.results[rate] = append(s.results[rate], r)
				}
			}
		}
	}
	return nil
}

// start runs a process until ctx ends and waits until it listens.
func start(ctx context.Context, address, name string, args ...string) (*exec.Cmd, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Stderr = os.Stderr
	endWithParent(c)
	if err := c.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return c, nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return nil, fmt.Errorf("%s does not listen on %s", name, address)
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0"
	}
	defer l.Close()
	return l.Addr().String()
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

func startHAProxy(ctx context.Context, dir, listen, upstream string) (*exec.Cmd, error) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, errors.New("it is not installed (apt-get install haproxy)")
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, fmt.Appendf(nil, haproxyConfig, listen, upstream), 0o600); err != nil {
		return nil, err
	}
	return start(ctx, listen, path, "-db", "-f", file)
}

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
