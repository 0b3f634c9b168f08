package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/test/bench/harness"
)

// local is how a node reaches its instances.
type local string

func (l local) Dial(ctx context.Context, _ uint16) (*net.TCPConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", string(l))
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// runNode assembles the data path as a node does, with everything on that is on by default. Node a has the
// clients, b the servers, both is one node with all.
func runNode(ctx context.Context, o options) error {
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
			p.Attach(to+"-1", local(o.upstream))
		}
	}
	p.Install(s)
}

// runUpstream is the server: of small answers, of a megabyte each, or of bytes without end.
func runUpstream(ctx context.Context, o options) error {
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	if o.protocol == "http2" {
		return harness.ServeHTTP2(ctx, l)
	}
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		switch o.protocol {
		case "large":
			go answerEach(c, large)
		case "tcp":
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		default:
			go answerEach(c, small)
		}
	}
}

var (
	small = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n" + strings.Repeat("x", 100))
	large = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + strconv.Itoa(megabyte) + "\r\n\r\n" + strings.Repeat("x", megabyte))
)

// answerEach answers every request with the same bytes, as cheaply as Go's standard library can.
func answerEach(c net.Conn, answer []byte) {
	defer c.Close()
	b := make([]byte, 8<<10)
	for n := 0; ; {
		m, err := c.Read(b[n:])
		if err != nil {
			return
		}
		n += m
		if !bytes.HasSuffix(b[:n], []byte("\r\n\r\n")) {
			continue
		}
		n = 0
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}
