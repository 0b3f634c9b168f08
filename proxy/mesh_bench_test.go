package proxy_test

import (
	"bytes"
	"context"
	"net"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/wire/h2"
)

// BenchmarkMesh is a call between two nodes, by mutual TLS, with caller and application in this process.
func BenchmarkMesh(b *testing.B) {
	b.Run("HTTP1", func(b *testing.B) {
		a := benchMesh(b, fleet.HTTP, answerPlainly)
		c := must(net.Dial("tcp", a))
		defer c.Close()
		buf := make([]byte, 4096)
		request := []byte("GET /some/path HTTP/1.1\r\nHost: inventory\r\nUser-Agent: bench\r\n\r\n")
		call := func() {
			_, _ = c.Write(request)
			for n := 0; ; {
				m, err := c.Read(buf[n:])
				if err != nil {
					b.Fatal(err)
				}
				if n += m; bytes.HasSuffix(buf[:n], []byte("hello")) {
					return
				}
			}
		}
		for range 200 {
			call()
		}
		b.ReportAllocs()
		for b.Loop() {
			call()
		}
	})
	b.Run("HTTP2", func(b *testing.B) {
		a := benchMesh(b, fleet.GRPC, func(nc net.Conn) {
			c := h2.NewServer(nc, h2.Config{}, func(s *h2.Stream, _ *h2.Batch) { s.SetReceiver(benchApp{}) })
			_ = c.Run(context.Background(), nil)
		})
		c := h2.NewClient(must(net.Dial("tcp", a)), h2.Config{})
		go func() { _ = c.Run(context.Background(), nil) }()
		defer func() { c.Close(); <-c.Done() }()
		benchCalls(b, c, 16, 200)
		b.ReportAllocs()
		b.ResetTimer()
		benchCalls(b, c, 16, b.N)
	})
}

func answerPlainly(c net.Conn) {
	defer c.Close()
	buf, n := make([]byte, 4096), 0
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello")
	for {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		if n += m; bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
			n = 0
			_, _ = c.Write(answer)
		}
	}
}

// benchMesh returns the address at which orders, on one node, calls inventory, on the other.
func benchMesh(b *testing.B, p fleet.Protocol, serve func(net.Conn)) string {
	m := newMeshWith(b, nil, nil, "a", "b")
	m.install(inventory(protocol(p), at("inventory-1@b")), orders(at("orders-1@a")))
	app := must(net.Listen("tcp", "127.0.0.1:0"))
	b.Cleanup(func() { app.Close() })
	go func() {
		for {
			c, err := app.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	m.nodes["b"].p.Attach("inventory-1", dialTo(app.Addr().String()))
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.nodes["a"].p.ServeNamed(ctx, l, proxy.Source{Service: "orders", Instance: "orders-1"}, "inventory", 8080)
	}()
	b.Cleanup(func() { cancel(); <-done })
	return l.Addr().String()
}
