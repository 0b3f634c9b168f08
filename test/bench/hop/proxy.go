package main

import (
	"context"
	"net"
	"os"
	"runtime/pprof"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
)

// local is how the proxy reaches its only instance.
type local string

func (l local) Dial(ctx context.Context, _ uint16) (*net.TCPConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", string(l))
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// runProxy assembles the data path as a node does, with everything on that is on by default.
func runProxy(ctx context.Context, o options) error {
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	p, err := proxy.New(proxy.Config{Node: "bench", Recorder: observe.New(observe.Config{})})
	if err != nil {
		return err
	}
	p.Attach("server-1", local(o.upstream))
	p.Install(snapshot())
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	go func() { _ = p.ServeNamed(ctx, l, proxy.Source{Service: "client", Instance: "client-1"}, "server", 80) }()
	return p.Run(ctx)
}

func snapshot() *fleet.Snapshot {
	return &fleet.Snapshot{Fleet: "bench", Version: 1, Services: []*fleet.Service{
		{
			Name: "client", Index: 16, Deployed: true,
			Endpoints: []fleet.Endpoint{{Instance: "client-1", Node: "bench"}},
			Manifest:  fleet.Manifest{Service: "client", Calls: []fleet.Call{{Service: "server"}}},
		},
		{
			Name: "server", Index: 17, Deployed: true,
			Endpoints: []fleet.Endpoint{{Instance: "server-1", Node: "bench"}},
			Manifest:  fleet.Manifest{Service: "server", Ports: []fleet.Port{{Number: 8080, Protocol: fleet.HTTP}}},
		},
	}}
}
