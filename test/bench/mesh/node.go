package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/test/bench/harness"
)

// runNode assembles the data path as a node does, with everything on that is on by default. Node a has the
// clients, b the servers, both is one node with all.
func runNode(ctx context.Context, o options) error {
	stop, err := harness.Profile(o.profile)
	if err != nil {
		return err
	}
	defer stop()
	config, err := loadCertificates(o.certs, o.role)
	if err != nil && o.role != "both" {
		return err
	}
	c := proxy.Config{Node: o.role, Recorder: observe.New(observe.Config{})}
	if o.peer != "" {
		c.Peer = func(ctx context.Context, node string) (net.Conn, error) { return dialPeer(ctx, o.peer, node, config) }
	}
	p, err := proxy.New(c)
	if err != nil {
		return err
	}
	if o.role == "b" {
		pairs, err := strconv.Atoi(o.listen)
		if err != nil {
			return err
		}
		serve(p, o, pairs)
		l, err := net.Listen("tcp", o.peer)
		if err != nil {
			return err
		}
		go func() { _ = p.ServePeer(ctx, proxy.PeerListener(l, config, nodeOf)) }()
		return p.Run(ctx)
	}
	outs := strings.Split(o.listen, ",")
	serve(p, o, len(outs))
	for i, address := range outs {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		src := proxy.Source{Service: fmt.Sprintf("client%d", i), Instance: fmt.Sprintf("client%d-1", i)}
		go func() { _ = p.ServeNamed(ctx, l, src, fmt.Sprintf("server%d", i), 8080) }()
	}
	return p.Run(ctx)
}

func dialPeer(ctx context.Context, address, node string, config *tls.Config) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.ServerName = node
	return proxy.SecurePeer(ctx, c, config)
}

func nodeOf(s tls.ConnectionState) (string, error) {
	if len(s.PeerCertificates) == 0 || len(s.PeerCertificates[0].DNSNames) == 0 {
		return "", errors.New("no certificate with a name")
	}
	return s.PeerCertificates[0].DNSNames[0], nil
}

// serve installs the fleet, and attaches the instances that run here.
func serve(p *proxy.Proxy, o options, pairs int) {
	clients, servers := "a", "b"
	if o.role == "both" {
		clients, servers = "both", "both"
	}
	s := &fleet.Snapshot{Fleet: "bench", Version: 1}
	for i := range pairs {
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
