package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	peerv1 "github.com/shoalrun/shoal/api/gen/shoal/peer/v1"
	"github.com/shoalrun/shoal/api/gen/shoal/peer/v1/peerv1connect"
	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/control"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
)

// BenchmarkApply measures the time from a change of one service until it is in force on every node: checked,
// stored with fsync, sent by the real link over loopback, compiled into each node's table and acknowledged.
// The nodes are simulated: a link and a proxy each, with 10 instances of every service placed on them.
func BenchmarkApply(b *testing.B) {
	for _, services := range []int{10, 1000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) { benchmarkApply(b, services, 3) })
	}
}

func benchmarkApply(b *testing.B, services, nodes int) {
	c := benchControl(b)
	for n := range nodes {
		node := fmt.Sprintf("n%d", n)
		go benchNode(b, node, benchLink(b, c, node))
	}
	all := make([]fleet.Service, services)
	for i := range all {
		all[i] = benchService(i, services)
	}
	apply := func(put ...fleet.Service) time.Duration {
		began := time.Now()
		version, err := c.Apply(b.Context(), fleet.Change{Reason: "bench", Put: put})
		if err == nil {
			err = c.Acked(b.Context(), version)
		}
		if err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	for len(c.Nodes()) < nodes && !b.Failed() {
		time.Sleep(time.Millisecond) // until every node has joined: the others are not waited for
	}
	apply(all...)
	var took []time.Duration
	for b.Loop() {
		s := &all[len(took)%services]
		s.Endpoints[0].State = map[fleet.EndpointState]fleet.EndpointState{fleet.Serving: fleet.Draining, fleet.Draining: fleet.Serving}[s.Endpoints[0].State]
		took = append(took, apply(*s))
	}
	if n := len(c.Nodes()); n < nodes {
		b.Fatalf("%d of %d nodes are left", n, nodes)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// benchService is a service with 10 instances that calls three others.
func benchService(i, of int) fleet.Service {
	s := fleet.Service{Name: fmt.Sprintf("s%d", i), Deployed: true}
	s.Manifest = fleet.Manifest{Service: s.Name, File: s.Name + "/shoal.yaml", Ports: []fleet.Port{{Number: 8080, Protocol: fleet.HTTP}}}
	for k := 1; k <= 3; k++ {
		s.Manifest.Calls = append(s.Manifest.Calls, fleet.Call{Service: fmt.Sprintf("s%d", (i+k)%of)})
	}
	for k := range 10 {
		s.Endpoints = append(s.Endpoints, fleet.Endpoint{Instance: fmt.Sprintf("%s-aaaaaa-%d", s.Name, k), Node: fmt.Sprintf("n%d", k%3), Release: "aaaaaa"})
	}
	return s
}

// benchControl is control on its real store.
func benchControl(b *testing.B) *control.Control {
	store, err := broker.New(broker.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- store.Run(ctx) }()
	c, err := control.New(control.Config{Store: store.Store(), Fleet: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stop()
		<-ended
	})
	return c
}

// benchLink is the hub's end of the link to one node.
func benchLink(b *testing.B, c *control.Control, node string) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	link := newLink(c)
	link.home, link.document = node, func() (*fleet.Mesh, <-chan struct{}) { return nil, nil }
	link.observing = func() (fleet.Observing, <-chan struct{}) { return fleet.Observing{}, nil }
	mux := http.NewServeMux()
	mux.Handle(peerv1connect.NewPeerHandler(link))
	srv := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = srv.Serve(l) }()
	b.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}

// benchNode is a node that has nothing but a link and a data path.
func benchNode(b *testing.B, name, address string) {
	p, err := proxy.New(proxy.Config{Node: name, Recorder: observe.New(observe.Config{})})
	if err != nil {
		b.Error(err)
		return
	}
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	stream := peerv1connect.NewPeerClient(&http.Client{Transport: transport}, "http://"+address).Snapshots(b.Context())
	_ = stream.Send(&peerv1.SnapshotsRequest{})
	known := map[string]*fleet.Service{}
	for {
		m, err := stream.Receive()
		if err != nil {
			return // the hub is gone: the benchmark has ended
		}
		for _, text := range m.Services {
			s := new(fleet.Service)
			if err := json.Unmarshal(text, s); err != nil {
				b.Error(err)
				return
			}
			known[s.Name] = s
		}
		if m.Version == 0 {
			continue
		}
		next := &fleet.Snapshot{Fleet: m.Fleet, Version: m.Version}
		for _, s := range known {
			next.Services = append(next.Services, s)
		}
		p.Install(next)
		_ = stream.Send(&peerv1.SnapshotsRequest{Acknowledged: m.Version})
	}
}
