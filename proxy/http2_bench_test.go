package proxy_test

import (
	"context"
	"net"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h2"
)

var (
	benchAsk = &h2.Head{Method: "POST", Scheme: "http", Path: "/shop.Inventory/Get", Authority: "inventory:8080", Fields: []h2.Field{
		{Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "bench/1.0"}, {Name: "te", Value: "trailers"},
	}}
	benchHead = &h2.Head{Status: 200, Fields: []h2.Field{{Name: "content-type", Value: "application/grpc"}}}
	benchEnd  = &h2.Head{Fields: []h2.Field{{Name: "grpc-status", Value: "0"}}}
	benchBody = make([]byte, 100)
)

// benchApp answers on its reading goroutine.
type benchApp struct{}

func (benchApp) Receive(s *h2.Stream, e h2.Event) {
	if !e.End {
		return
	}
	_ = s.SendHead(e.Batch, benchHead, false)
	_, _ = s.SendData(e.Batch, benchBody, false)
	_ = s.SendHead(e.Batch, benchEnd, true)
	s.Release(e.Batch)
}

type benchCaller struct{ done chan *h2.Stream }

func (w *benchCaller) Receive(s *h2.Stream, e h2.Event) {
	if e.End || e.Kind == h2.Closed {
		w.done <- s
	}
}

func benchShop(tb testing.TB) *h2.Conn {
	l := listenHTTP2(tb)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			c := h2.NewServer(nc, h2.Config{}, func(s *h2.Stream, _ *h2.Batch) { s.SetReceiver(benchApp{}) })
			go func() { _ = c.Run(context.Background(), nil) }()
		}
	}()
	s := newShop(tb, "n1", nil)
	s.install(0, fleet.Endpoint{Instance: "inventory-1", Node: "n1"})
	s.p.Attach("inventory-1", to(l.Addr().String()))
	nc, err := net.Dial("tcp", s.outbound("web", "inventory"))
	if err != nil {
		tb.Fatal(err)
	}
	c := h2.NewClient(nc, h2.Config{})
	go func() { _ = c.Run(context.Background(), nil) }()
	tb.Cleanup(func() { c.Close(); <-c.Done() })
	return c
}

func benchCalls(tb testing.TB, c *h2.Conn, streams, n int) {
	w := &benchCaller{done: make(chan *h2.Stream, streams)}
	send := func() {
		s, err := c.Open(nil, benchAsk, false, w)
		if err != nil {
			tb.Fatal(err)
		}
		_, _ = s.SendData(nil, benchBody, true)
	}
	for range min(streams, n) {
		send()
	}
	for i := range n {
		s := <-w.done
		if t := s.Trailers(); t == nil || t.Get("grpc-status") != "0" {
			tb.Fatalf("%+v %+v", s.Head(), t)
		}
		s.Release(nil)
		if i+streams < n {
			send()
		}
	}
}

// BenchmarkGRPC is a unary call through the proxy, with caller and application in this process.
func BenchmarkGRPC(b *testing.B) {
	for name, streams := range map[string]int{"1 stream": 1, "16 streams": 16} {
		b.Run(name, func(b *testing.B) {
			c := benchShop(b)
			benchCalls(b, c, streams, 200)
			b.ReportAllocs()
			b.ResetTimer()
			benchCalls(b, c, streams, b.N)
		})
	}
}
