package h2_test

import (
	"testing"

	"github.com/shoalrun/shoal/wire/h2"
)

// answer is a server that answers on the reading goroutine.
func answer(s *h2.Stream, b *h2.Batch) {
	r := &responder{}
	s.SetReceiver(r)
	if s.Ended() {
		r.send(s, b)
	}
}

type responder struct{}

var (
	okHead = &h2.Head{Status: 200, Fields: []h2.Field{{Name: "content-type", Value: "application/grpc"}}}
	okEnd  = &h2.Head{Fields: []h2.Field{{Name: "grpc-status", Value: "0"}}}
	okBody = make([]byte, 100)
	asked  = &h2.Head{Method: "POST", Scheme: "http", Path: "/test.Echo/Unary", Authority: "inventory", Fields: []h2.Field{
		{Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "test/1.0"}, {Name: "te", Value: "trailers"},
	}}
)

func (r *responder) Receive(s *h2.Stream, e h2.Event) {
	if e.End {
		r.send(s, e.Batch)
	}
}

func (*responder) send(s *h2.Stream, b *h2.Batch) {
	_ = s.SendHead(b, okHead, false)
	_, _ = s.SendData(b, okBody, false)
	_ = s.SendHead(b, okEnd, true)
	s.Release(b)
}

type waiter struct{ done chan *h2.Stream }

func (w *waiter) Receive(s *h2.Stream, e h2.Event) {
	if e.End || e.Kind == h2.Closed {
		w.done <- s
	}
}

// load keeps a number of streams in flight until n requests are answered.
func load(tb testing.TB, c *h2.Conn, streams, n int) {
	w := &waiter{done: make(chan *h2.Stream, streams)}
	send := func() {
		s, err := c.Open(nil, asked, false, w)
		if err != nil {
			tb.Fatal(err)
		}
		_, _ = s.SendData(nil, okBody, true)
	}
	for range min(streams, n) {
		send()
	}
	for i := range n {
		s := <-w.done
		if s.Trailers() == nil {
			tb.Fatal("no trailers")
		}
		s.Release(nil)
		if i+streams < n {
			send()
		}
	}
}

// BenchmarkRelay is a gRPC-like request through client, relay and server, all in this process.
func BenchmarkRelay(b *testing.B) {
	for _, streams := range []int{1, 16} {
		b.Run(map[int]string{1: "1", 16: "16"}[streams], func(b *testing.B) {
			l := listen(b)
			serve(b, l, h2.Config{}, answer)
			c := dial(b, startRelay(b, l.Addr().String(), h2.Config{}), h2.Config{})
			load(b, c, streams, 100)
			b.ReportAllocs()
			b.ResetTimer()
			load(b, c, streams, b.N)
		})
	}
}

// In steady state a request through a relay allocates nothing, at any of the four ends.
func TestRelayAllocatesNothing(t *testing.T) {
	l := listen(t)
	serve(t, l, h2.Config{}, answer)
	c := dial(t, startRelay(t, l.Addr().String(), h2.Config{}), h2.Config{})
	load(t, c, 8, 1000)
	each := testing.AllocsPerRun(20, func() { load(t, c, 8, 1000) }) / 1000
	if limit := 0.5; each > limit { // what is left is the load generator's and rare growth
		t.Fatalf("%.2f allocations per request", each)
	}
}
