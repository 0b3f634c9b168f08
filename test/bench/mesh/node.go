package main

import (
	"context"
	"fmt"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/test/bench/harness"
)

// runNode assembles the data path as a node does, with everything on that is on by default. Node a has the
// clients, b the servers, both is one node with all.
func runNode(ctx context.Context, o options) error {
	stop, err := harness.Profile(o.Profile)
	if err != nil {
		return err
	}
	defer stop()
	source, err := openIdentity(o.certs, o.role)
	if err != nil {
		return err
	}
	c := proxy.Config{Node: o.role, Recorder: observe.New(observe.Config{})}
	if o.peer != "" {
		c.Peer = dialer(source, o.peer)
	}
	p, err := proxy.New(c)
	if err != nil {
		return err
	}
	serve(p, o)
	if o.role == "b" {
		l, err := harness.Inherited(1)
		if err != nil {
			return err
		}
		servePeers(ctx, p, source, l[0])
		return p.Run(ctx)
	}
	outs, err := harness.Inherited(o.pairs)
	if err != nil {
		return err
	}
	for i, l := range outs {
		src := proxy.Source{Service: fmt.Sprintf("client%d", i), Instance: fmt.Sprintf("client%d-1", i)}
		go func() { _ = p.ServeNamed(ctx, l, src, fmt.Sprintf("server%d", i), 8080) }()
	}
	return p.Run(ctx)
}

// serve installs the fleet, and attaches the instances that run here.
func serve(p *proxy.Proxy, o options) {
	clients, servers := "a", "b"
	if o.role == "both" {
		clients, servers = "both", "both"
	}
	s := &fleet.Snapshot{Fleet: "bench", Version: 1}
	for i := range o.pairs {
		c, to := fmt.Sprintf("client%d", i), fmt.Sprintf("server%d", i)
		s.Services = append(s.Services, &fleet.Service{
			Name: c, Index: uint16(16 + 2*i), Deployed: true,
			Endpoints: []fleet.Endpoint{{Instance: c + "-1", Node: clients}},
			Manifest:  fleet.Manifest{Service: c, Calls: []fleet.Call{{Service: to}}},
		}, &fleet.Service{
			Name: to, Index: uint16(17 + 2*i), Deployed: true,
			Endpoints: []fleet.Endpoint{{Instance: to + "-1", Node: servers}},
			Manifest:  fleet.Manifest{Service: to, Ports: []fleet.Port{{Number: 8080, Protocol: fleet.Protocol(o.protocol)}}},
		})
		if o.role == servers {
			p.Attach(to+"-1", harness.Local(o.upstream))
		}
	}
	p.Install(s)
}
