package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/test/bench/harness"
)

// runProxy assembles the data path as a node does, with everything on that is on by default. The nth listener
// is for the nth service.
func runProxy(ctx context.Context, o options) error {
	stop, err := harness.Profile(o.Profile)
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
	s := snapshot(o)
	p.Install(s)
	if o.churn > 0 {
		go churn(ctx, p, s, o.churn)
	}
	listeners, err := harness.Inherited(o.listeners)
	if err != nil {
		return err
	}
	for i, l := range listeners {
		go func() { _ = p.ServeNamed(ctx, l, proxy.Source{Service: "client", Instance: "client-1"}, server(i), 80) }()
	}
	return p.Run(ctx)
}

func server(i int) string   { return fmt.Sprintf("server%d", i) }
func instance(i int) string { return server(i) + "-1" }

// snapshot has a client that may call every server.
func snapshot(o options) *fleet.Snapshot {
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
