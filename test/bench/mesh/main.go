// Mesh measures what a call costs between services: on two nodes with mutual TLS between them, on one node,
// and as bulk, against a chain of two HAProxies, one beside each service, which is how a mesh of sidecars
// is built. CPU microseconds of all proxy processes per request, with the same clients and servers; rounds
// are interleaved and medians compared. For bulk it is bytes a second.
//
//	test/bench/run.sh mesh [-only PART] [-rounds 5] [-time 3s] [-profile DIR] [-rows FILE]
//
// It starts copies of itself for the parts that must be processes of their own, talks to loopback only,
// and ends by itself.
package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"strconv"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// options has what a process is told that this program starts, too.
type options struct {
	harness.Options
	role     string
	pairs    int
	upstream string
	peer     string
	certs    string
	protocol string
}

func main() {
	var o options
	o.Define()
	flag.StringVar(&o.role, "role", "", "for its own use: a, b, both or upstream")
	flag.IntVar(&o.pairs, "pairs", 1, "for its own use: how many services are called")
	flag.StringVar(&o.upstream, "upstream", "", "for its own use")
	flag.StringVar(&o.peer, "peer", "", "for its own use")
	flag.StringVar(&o.certs, "certs", "", "for its own use")
	flag.StringVar(&o.protocol, "protocol", "http", "for its own use: what a part speaks")
	harness.Main("mesh", func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	switch o.role {
	case "":
		return o.Run(ctx, parts(o))
	case "upstream":
		return harness.RunUpstream(ctx, o.protocol)
	}
	return runNode(ctx, o)
}

func parts(o options) (all []harness.Part) {
	for _, c := range calls {
		all = append(all, harness.Part{Name: c.name, Measure: func(ctx context.Context, dir string) error { return c.measure(ctx, o, dir) }})
	}
	for _, b := range bulks {
		all = append(all, harness.Part{Name: b.name, Measure: func(ctx context.Context, dir string) error { return b.measure(ctx, o, dir) }})
	}
	return all
}

func at(goal float64) []harness.Rate {
	return []harness.Rate{{PerSecond: 0, Goal: goal}, {PerSecond: 8000, Goal: goal}, {PerSecond: 2000, Goal: goal}}
}

// call is one comparison of what calls cost.
type call struct {
	name  string
	pairs int  // of services, each with a client and a server of its own
	http2 bool // at the ends
	tls   bool // between the proxies
	one   bool // ours is one node
	load  harness.Load
	rates []harness.Rate
}

var calls = []call{
	{name: "two nodes, mTLS, HTTP/1.1 ends", pairs: 1, tls: true, load: harness.HTTP1(64), rates: at(0.8)},
	{name: "two nodes, mTLS, HTTP/1.1 ends, 30 service pairs", pairs: 30, tls: true, load: harness.HTTP1(60), rates: at(0.8)},
	{name: "two nodes, mTLS, HTTP/2 ends, 8x16", pairs: 1, http2: true, tls: true, load: harness.HTTP2(8, 16), rates: at(0.8)},
	{name: "two nodes, mTLS, HTTP/2 ends, 64x1", pairs: 1, http2: true, tls: true, load: harness.HTTP2(64, 1), rates: at(0.8)},
	{name: "two nodes, mTLS, HTTP/2 ends, 30 service pairs", pairs: 30, http2: true, tls: true, load: harness.HTTP2(30, 4), rates: at(0.8)},
	{name: "one node, whole mesh path, beside mTLS", pairs: 1, tls: true, one: true, load: harness.HTTP1(64), rates: at(0.45)},
	{name: "one node, whole mesh path, beside plaintext", pairs: 1, one: true, load: harness.HTTP1(64), rates: at(0.6)},
}

// measure compares the two chains.
func (c call) measure(ctx context.Context, o options, dir string) error {
	ends := "http"
	if c.http2 {
		ends = "http2"
	}
	upstream, err := harness.StartUpstream(ctx, ends)
	if err != nil {
		return err
	}
	ours, err := startShoal(ctx, o, dir, chain{name: c.name, upstream: upstream, pairs: c.pairs, mode: "http", one: c.one})
	if err != nil {
		return err
	}
	sides := []*harness.Side{ours}
	if _, err := harness.Installed("haproxy"); err == nil {
		peer, err := haproxies(ctx, dir, upstream, c.pairs, "http", c.http2, c.tls)
		if err != nil {
			return err
		}
		sides = append(sides, peer)
	}
	err = harness.MeasureAll(ctx, o.Rounds, o.Time, c.rates, sides, c.load)
	harness.Report(os.Stdout, c.name, c.rates, sides, "shoal", "haproxy")
	harness.Stop(ours.Processes, o.Profile)
	return errors.Join(err, rows.Save(o.Rows, harness.Costs(c.name, c.rates, sides, "shoal", "haproxy")...))
}

// chain is Shoal from clients to servers.
type chain struct {
	name     string
	upstream string
	pairs    int    // of services
	mode     string // http or tcp
	one      bool   // one node, else two
}

// startShoal starts the nodes of a chain.
func startShoal(ctx context.Context, o options, dir string, c chain) (*harness.Side, error) {
	if err := makeIdentities(ctx, dir); err != nil {
		return nil, err
	}
	node := func(role string, listeners int, more ...string) (*harness.Side, error) {
		args := append([]string{"-role", role, "-certs", dir, "-protocol", c.mode, "-upstream", c.upstream, "-pairs", strconv.Itoa(c.pairs),
			"-profile", harness.ProfileName(o.Profile, c.name, role)}, more...)
		return harness.StartSide(ctx, "shoal", listeners, os.Args[0], args...)
	}
	if c.one {
		return node("both", c.pairs)
	}
	b, err := node("b", 1)
	if err != nil {
		return nil, err
	}
	a, err := node("a", c.pairs, "-peer", b.Address)
	if err != nil {
		return nil, err
	}
	a.Processes = append(a.Processes, b.Processes...)
	return a, nil
}
