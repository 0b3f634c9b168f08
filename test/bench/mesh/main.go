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
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

type options struct {
	role     string
	listen   string
	upstream string
	peer     string
	certs    string
	protocol string
	rounds   int
	time     time.Duration
	only     string
	profile  string
	rows     string
}

func main() {
	runtime.LockOSThread() // children end with the thread that started them: this one
	var o options
	flag.StringVar(&o.role, "role", "", "for its own use: a, b, both or upstream")
	flag.StringVar(&o.listen, "listen", "", "for its own use")
	flag.StringVar(&o.upstream, "upstream", "", "for its own use")
	flag.StringVar(&o.peer, "peer", "", "for its own use")
	flag.StringVar(&o.certs, "certs", "", "for its own use")
	flag.StringVar(&o.protocol, "protocol", "http", "for its own use: what a part speaks")
	flag.IntVar(&o.rounds, "rounds", 5, "measurements of each side at each rate")
	flag.DurationVar(&o.time, "time", 3*time.Second, "length of a measurement; at most 30s")
	flag.StringVar(&o.only, "only", "", "measure only the parts whose names contain this")
	flag.StringVar(&o.profile, "profile", "", "write CPU profiles of our processes into this folder")
	flag.StringVar(&o.rows, "rows", "", "add the figures to the list in this JSON file")
	flag.Parse()
	o.time = min(o.time, 30*time.Second)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "mesh:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	switch o.role {
	case "":
		return bench(ctx, o)
	case "upstream":
		return harness.Upstream(ctx, o.listen, o.protocol)
	}
	return runNode(ctx, o)
}

func at(goal float64) []harness.Rate {
	return []harness.Rate{{PerSecond: 0, Goal: goal}, {PerSecond: 8000, Goal: goal}, {PerSecond: 2000, Goal: goal}}
}

// part is one comparison.
type part struct {
	name  string
	pairs int  // of services, each with a client and a server of its own
	http2 bool // at the ends
	tls   bool // between the proxies
	one   bool // ours is one node
	load  harness.Load
	rates []harness.Rate
}

var parts = []part{
	{name: "two nodes, mTLS, HTTP/1.1 ends", pairs: 1, tls: true, load: harness.HTTP1(64), rates: at(0.8)},
	{name: "two nodes, mTLS, HTTP/1.1 ends, 30 service pairs", pairs: 30, tls: true, load: harness.HTTP1(60), rates: at(0.8)},
	{name: "two nodes, mTLS, HTTP/2 ends, 8x16", pairs: 1, http2: true, tls: true, load: harness.HTTP2(8, 16), rates: at(0.8)},
	{name: "two nodes, mTLS, HTTP/2 ends, 64x1", pairs: 1, http2: true, tls: true, load: harness.HTTP2(64, 1), rates: at(0.8)},
	{name: "two nodes, mTLS, HTTP/2 ends, 30 service pairs", pairs: 30, http2: true, tls: true, load: harness.HTTP2(30, 4), rates: at(0.8)},
	{name: "one node, whole mesh path, beside mTLS", pairs: 1, tls: true, one: true, load: harness.HTTP1(64), rates: at(0.45)},
	{name: "one node, whole mesh path, beside plaintext", pairs: 1, one: true, load: harness.HTTP1(64), rates: at(0.6)},
}

func bench(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "mesh")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(makeCertificates(dir), makeIdentities(ctx, dir)); err != nil {
		return err
	}
	for _, p := range parts {
		if !strings.Contains(p.name, o.only) {
			continue
		}
		if err := p.measure(ctx, o, dir); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return benchBulk(ctx, o, dir)
}

// measure compares the two chains, each in processes that end with it.
func (p part) measure(ctx context.Context, o options, dir string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := "http"
	if p.http2 {
		ends = "http2"
	}
	upstream := harness.FreeAddress()
	if _, err := harness.Start(ctx, upstream, os.Args[0], "-role", "upstream", "-listen", upstream, "-protocol", ends); err != nil {
		return err
	}
	ours, err := p.shoal(ctx, o, dir, upstream)
	if err != nil {
		return err
	}
	sides := []*harness.Side{ours}
	if peer, err := p.haproxy(ctx, dir, upstream); err != nil {
		fmt.Println("without HAProxy:", err)
	} else {
		sides = append(sides, peer)
	}
	if err := harness.MeasureAll(ctx, o.rounds, o.time, p.rates, sides, p.load); err != nil {
		return err
	}
	harness.Report(os.Stdout, p.name, p.rates, sides, "shoal", "haproxy")
	harness.Stop(ours.Processes, o.profile)
	return rows.Save(o.rows, harness.Costs(p.name, p.rates, sides, "shoal", "haproxy")...)
}

func (p part) shoal(ctx context.Context, o options, dir, upstream string) (*harness.Side, error) {
	protocol := "http"
	outs := addresses(p.pairs)
	flags := func(role string, more ...string) []string {
		profile := harness.ProfileName(o.profile, p.name, role)
		return append([]string{"-role", role, "-certs", dir, "-protocol", protocol, "-profile", profile, "-upstream", upstream}, more...)
	}
	if p.one {
		c, err := harness.Start(ctx, outs[0], os.Args[0], flags("both", "-listen", strings.Join(outs, ","))...)
		return harness.NewSide("shoal", strings.Join(outs, ","), c), err
	}
	peer := harness.FreeAddress()
	b, err := harness.Start(ctx, peer, os.Args[0], flags("b", "-listen", strconv.Itoa(p.pairs), "-peer", peer)...)
	if err != nil {
		return nil, err
	}
	a, err := harness.Start(ctx, outs[0], os.Args[0], flags("a", "-listen", strings.Join(outs, ","), "-peer", peer)...)
	return harness.NewSide("shoal", strings.Join(outs, ","), a, b), err
}

func addresses(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = harness.FreeAddress()
	}
	return all
}
