package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/test/bench/harness"
)

// proxyOptions are what a process that this program starts is told.
type proxyOptions struct {
	listen   string
	upstream string
	protocol string
	services int
	routes   int
	churn    time.Duration
}

func (o *proxyOptions) define() {
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "for its own use: addresses, with commas between them")
	flag.StringVar(&o.upstream, "upstream", "", "for its own use")
	flag.StringVar(&o.protocol, "protocol", "http", "for its own use: http, http2 or grpc")
	flag.IntVar(&o.services, "services", 1, "for its own use: services of the snapshot")
	flag.IntVar(&o.routes, "routes", 0, "for its own use: routes of each service")
	flag.DurationVar(&o.churn, "churn", 0, "for its own use: how often a route of a service changes; 0: never")
}

// runProxy assembles the data path as a node does, with everything on that is on by default. The nth address
// is for the nth service.
func runProxy(ctx context.Context, o options) error {
	stop, err := harness.Profile(o.profile)
	if err != nil {
		return err
	}
	defer stop()
	p, err := proxy.New(proxy.Config{Node: "bench", Recorder: observe.New(observe.Config{})})
	if err != nil {
		return err
	}
	for i := range o.services {
		p.Attach(instance(i), harness.Local(o.upstream))
	}
	s := snapshot(o.proxyOptions)
	p.Install(s)
	if o.churn > 0 {
		go churn(ctx, p, s, o.churn)
	}
	for i, address := range strings.Split(o.listen, ",") {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		go func() { _ = p.ServeNamed(ctx, l, proxy.Source{Service: "client", Instance: "client-1"}, server(i), 80) }()
	}
	return p.Run(ctx)
}

func server(i int) string   { return fmt.Sprintf("server%d", i) }
func instance(i int) string { return server(i) + "-1" }

// snapshot has a client that may call every server.
func snapshot(o proxyOptions) *fleet.Snapshot {
	protocol := fleet.HTTP
	if o.protocol == "grpc" {
		protocol = fleet.GRPC
	}
	client := &fleet.Service{
		Name: "client", Index: 16, Deployed: true,
		Endpoints: []fleet.Endpoint{{Instance: "client-1", Node: "bench"}},
		Manifest:  fleet.Manifest{Service: "client"},
	}
	s := &fleet.Snapshot{Fleet: "bench", Version: 1, Services: []*fleet.Service{client}}
	for i := range o.services {
		client.Manifest.Calls = append(client.Manifest.Calls, fleet.Call{Service: server(i)})
		s.Services = append(s.Services, &fleet.Service{
			Name: server(i), Index: uint16(17 + i), Deployed: true,
			Endpoints: []fleet.Endpoint{{Instance: instance(i), Node: "bench"}},
			Manifest: fleet.Manifest{
				Service: server(i), Ports: []fleet.Port{{Number: 8080, Protocol: protocol, Default: true}}, Routes: manyRoutes(o.routes),
			},
		})
	}
	return s
}

// manyRoutes are n, of which the last matches what is asked.
func manyRoutes(n int) (all []fleet.Route) {
	for i := range n {
		path := fmt.Sprintf("/some/other/path%d/*", i)
		if i == n-1 {
			path = "/some/path*"
		}
		all = append(all, fleet.Route{Name: fmt.Sprintf("route%d", i), Match: fleet.Match{Path: path}, Timeout: fleet.Duration(30 * time.Second)})
	}
	return all
}

// churn changes a route of one service after the other, as a new manifest does: one more snapshot, in which
// the other services stay as they are.
func churn(ctx context.Context, p *proxy.Proxy, s *fleet.Snapshot, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		next := *s
		next.Version++
		next.Services = slices.Clone(s.Services)
		changed := *s.Services[n%(len(s.Services)-1)+1]
		changed.Manifest.Routes = slices.Clone(changed.Manifest.Routes)
		changed.Manifest.Routes[0].Timeout += fleet.Duration(time.Millisecond)
		next.Services[n%(len(s.Services)-1)+1] = &changed
		s = &next
		p.Install(s)
	}
}
