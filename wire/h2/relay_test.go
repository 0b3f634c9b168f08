package h2_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/wire/h2"
)

// relay joins a server and a client as an intermediary does: the shape in which the data path uses
// this package, without anything that a mesh adds.
type relay struct {
	client *h2.Conn
	pairs  sync.Pool
}

type pair struct {
	relay *relay
	mu    sync.Mutex
	down  *h2.Stream
	up    *h2.Stream
}

func (r *relay) handle(s *h2.Stream, b *h2.Batch) {
	p, _ := r.pairs.Get().(*pair)
	if p == nil {
		p = &pair{relay: r}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = s
	s.SetReceiver(p)
	up, err := r.client.Open(b, s.Head(), s.Ended(), p)
	if err != nil {
		s.Reset(b, h2.RefusedStream)
		s.Release(b)
		p.down = nil
		return
	}
	p.up = up
}

func (p *pair) Receive(s *h2.Stream, e h2.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, to := p.down, p.up
	if s == p.up && p.up != nil {
		from, to = p.up, p.down
	}
	if s != from || s == nil {
		return
	}
	over := false
	switch e.Kind {
	case h2.Headers:
		_ = to.SendHead(e.Batch, s.Head(), e.End)
		over = e.End
	case h2.Data, h2.Trailers:
		over = from.Forward(e.Batch, to, e.Data, e.End) && from == p.up
	case h2.Writable:
		over = to.Forward(e.Batch, from, nil, false) && to == p.up
	case h2.Closed:
		to.Reset(e.Batch, e.Err.Code)
		over = true
	}
	if over {
		p.down.Release(e.Batch)
		p.up.Release(e.Batch)
		p.down, p.up = nil, nil
		p.relay.pairs.Put(p)
	}
}

// listen returns a listener that ends with the test.
func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serve runs servers of this package on l until the test ends.
func serve(t testing.TB, l net.Listener, cfg h2.Config, handle func(*h2.Stream, *h2.Batch)) *conns {
	t.Helper()
	all := &conns{}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			c := h2.NewServer(nc, cfg, handle)
			all.add(c)
			wg.Go(func() { all.ended(c.Run(ctx, nil)) })
		}
	})
	t.Cleanup(func() { l.Close(); cancel(); wg.Wait() })
	return all
}

type conns struct {
	mu   sync.Mutex
	list []*h2.Conn
	errs []error
}

func (c *conns) add(h *h2.Conn) { c.mu.Lock(); c.list = append(c.list, h); c.mu.Unlock() }
func (c *conns) ended(err error) {
	c.mu.Lock()
	c.errs = append(c.errs, err)
	c.mu.Unlock()
}
func (c *conns) all() []*h2.Conn { c.mu.Lock(); defer c.mu.Unlock(); return slices.Clone(c.list) }

// dial runs a client of this package until the test ends.
func dial(t testing.TB, addr string, cfg h2.Config) *h2.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := h2.NewClient(nc, cfg)
	go func() { _ = c.Run(context.Background(), nil) }()
	t.Cleanup(func() { c.Close(); <-c.Done() })
	return c
}

// startRelay puts a relay in front of addr and returns its address.
func startRelay(t testing.TB, addr string, cfg h2.Config) string {
	t.Helper()
	l := listen(t)
	r := &relay{client: dial(t, addr, cfg)}
	serve(t, l, cfg, r.handle)
	return l.Addr().String()
}

// eventually polls until ok, for ten seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("never: " + what)
}
