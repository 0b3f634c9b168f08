// Capture measures what a call costs the whole machine where the caller's connections are captured in its
// namespace: client, server, Shoal and kernel together, beside the same client and server without Shoal. The
// fleet is a real one, of the real binary in netns mode; the client runs by `shoal exec`.
//
//	test/bench/run.sh capture [-rounds 5] [-time 3s] [-rows FILE]
//
// It needs bin/shoal and a kernel that allows namespaces, and ends by itself.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

type options struct {
	role      string
	address   string
	each      bool
	perSecond int
	rounds    int
	time      time.Duration
	rows      string
}

func main() {
	runtime.LockOSThread() // children end with the thread that started them: this one
	var o options
	flag.StringVar(&o.role, "role", "", "for its own use: server, client or waiter")
	flag.StringVar(&o.address, "address", "", "for its own use")
	flag.BoolVar(&o.each, "each", false, "for its own use: a connection for each request")
	flag.IntVar(&o.perSecond, "rate", 0, "for its own use")
	flag.IntVar(&o.rounds, "rounds", 5, "measurements of each side at each rate")
	flag.DurationVar(&o.time, "time", 3*time.Second, "length of a measurement; at most 30s")
	flag.StringVar(&o.rows, "rows", "", "add the figures to the list in this JSON file")
	flag.Parse()
	o.time = min(o.time, 30*time.Second)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "capture:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	switch o.role {
	case "server":
		return harness.Upstream(ctx, o.address, "http")
	case "client":
		return ask(ctx, o)
	case "waiter":
		<-ctx.Done()
		return nil
	}
	return bench(ctx, o)
}

// ask is the client: it says when it begins, and then how it went. It stays until its input ends, so that its
// CPU time can be read.
func ask(ctx context.Context, o options) error {
	to, err := net.ResolveTCPAddr("tcp", o.address) // once: it is no name server that is measured
	if err != nil {
		return err
	}
	load := harness.HTTP1(64)
	if o.each {
		load = harness.HTTP1Each(64)
	}
	rate := harness.Rate{PerSecond: o.perSecond}
	if _, err := load(ctx, to.String(), time.Now().Add(200*time.Millisecond), rate); err != nil {
		return err // it was to warm up
	}
	fmt.Println("{}")
	took, err := load(ctx, to.String(), time.Now().Add(o.time), rate)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(harness.Summary(took)); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// running is a fleet of two services.
type running struct {
	*harness.Fleet
	idle float64 // processors that are in use while nobody asks
}

// startFleet starts a service that is called, and one in whose namespace clients run.
func startFleet(ctx context.Context, dir, self string) (*running, error) {
	f, err := harness.StartFleet(ctx, dir, map[string]string{
		"server": "service: server\nrun: " + self + " -role server -address 127.0.0.1:8080\nlisten: {8080: http}\n",
		"client": "service: client\nrun: " + self + " -role waiter\ncalls: {server: {}}\n",
	}, "--mode", "netns")
	return &running{Fleet: f}, err
}

// part is one way to make connections.
type part struct {
	name  string
	each  bool
	rates []harness.Rate
}

// The kernel remembers a captured connection for some seconds after its end, so that new ones are bounded
// on any machine: their rate is one that each can do.
var parts = []part{
	{"one node, captured in namespaces, keep-alive, whole machine", false, []harness.Rate{{}, {PerSecond: 8000}, {PerSecond: 2000}}},
	{"one node, captured in namespaces, a connection per request, whole machine", true, []harness.Rate{{PerSecond: 1000}}},
}

func bench(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "capture")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	f, err := startFleet(ctx, dir, self)
	if err != nil {
		return err
	}
	defer f.Stop()
	bare := harness.FreeAddress()
	if _, err := harness.Start(ctx, bare, self, "-role", "server", "-address", bare); err != nil {
		return err
	}
	if err := f.watchIdle(ctx, o.time); err != nil {
		return err
	}
	ours, without := harness.NewSide("shoal", "server:80"), harness.NewSide("no Shoal", bare)
	sides := []*harness.Side{ours, without}
	for _, p := range parts {
		if err := p.measure(ctx, o, f, sides); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		harness.Report(os.Stdout, p.name, p.rates, sides, ours.Name, without.Name)
		if err := rows.Save(o.rows, harness.Costs(p.name, p.rates, sides, ours.Name, without.Name)...); err != nil {
			return err
		}
	}
	return nil
}
