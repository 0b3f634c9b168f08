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
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
)

type options struct {
	harness.Options
	role      string
	address   string
	each      bool
	perSecond int
}

func main() {
	var o options
	o.Define()
	flag.StringVar(&o.role, "role", "", "for its own use: server, upstream, client or waiter")
	flag.StringVar(&o.address, "address", "", "for its own use")
	flag.BoolVar(&o.each, "each", false, "for its own use: a connection for each request")
	flag.IntVar(&o.perSecond, "rate", 0, "for its own use")
	harness.Main("capture", func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	switch o.role {
	case "server":
		l, err := net.Listen("tcp", o.address)
		if err != nil {
			return err
		}
		return harness.Upstream(ctx, l, "http")
	case "upstream":
		return harness.RunUpstream(ctx, "http")
	case "client":
		return ask(ctx, o)
	case "waiter":
		<-ctx.Done()
		return nil
	}
	return o.Run(ctx, []harness.Part{{Name: "captured in namespaces", Measure: func(ctx context.Context, dir string) error { return bench(ctx, o, dir) }}})
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
	took, err := load(ctx, to.String(), time.Now().Add(o.Time), rate)
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

// bench measures all parts in one fleet.
func bench(ctx context.Context, o options, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	f, err := startFleet(ctx, dir, self)
	if err != nil {
		return err
	}
	defer f.Stop()
	bare, err := harness.StartSide(ctx, "no Shoal", 1, self, "-role", "upstream")
	if err != nil {
		return err
	}
	if err := f.watchIdle(ctx, o.Time); err != nil {
		return err
	}
	var errs []error
	for _, p := range parts {
		errs = append(errs, p.measure(ctx, o, f, bare.Address))
	}
	return errors.Join(errs...)
}
