package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// cable is the network between two nodes, which can be cut in each direction: what is sent then is lost.
type cable struct {
	sends, hears atomic.Bool // lost
	mu           sync.Mutex  // guards ends
	ends         []net.Conn
}

func (w *cable) join(c net.Conn) net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends = append(w.ends, c)
	return &cabled{c, w}
}

// sever resets all connections, as a process that is killed does.
func (w *cable) sever() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.ends {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	w.ends = nil
}

type cabled struct {
	net.Conn
	w *cable
}

func (c *cabled) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.w.hears.Load() {
			return n, err
		}
	}
}

func (c *cabled) Write(p []byte) (int, error) {
	if c.w.sends.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// threeNodes has orders on a, and inventory on b, by the cable, and on c.
func threeNodes(t *testing.T) (a *meshNode, w *cable, seen func(node string) int64) {
	w = &cable{}
	m := newMeshWith(t, nil, func(from, to string, c net.Conn) net.Conn {
		if from == "a" && to == "b" {
			return w.join(c)
		}
		return c
	}, "a", "b", "c")
	m.install(inventory(at("inventory-1@b", "inventory-2@c")), orders(at("orders-1@a")))
	counts := map[string]*atomic.Int64{"b": {}, "c": {}}
	for node, instance := range map[string]string{"b": "inventory-1", "c": "inventory-2"} {
		m.nodes[node].attach(instance, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			counts[node].Add(1)
			io.WriteString(rw, node)
		}))
	}
	return m.nodes["a"], w, func(node string) int64 { return counts[node].Load() }
}

// load asks without pause, until stop: it counts answers and failures.
type load struct {
	ok, failed atomic.Int64
	wg         sync.WaitGroup
	stop       chan struct{}
}

func (n *meshNode) load(method, addr string, workers int) *load {
	l := &load{stop: make(chan struct{})}
	client := n.client()
	for range workers {
		l.wg.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				res, err := client.Do(must(http.NewRequest(method, "http://"+addr+"/", strings.NewReader("x"))))
				if err != nil {
					l.failed.Add(1)
					continue
				}
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 {
					l.failed.Add(1)
					continue
				}
				l.ok.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	return l
}

func (l *load) end() { close(l.stop); l.wg.Wait() }

// A node that falls silent is noticed, and its calls go elsewhere: those that may be repeated do not fail,
// and of the others only those that were there. When it is back it is used again.
func TestMeshSilentNode(t *testing.T) {
	for name, cut := range map[string]func(w *cable, on bool){
		"frozen":   func(w *cable, on bool) { w.sends.Store(on); w.hears.Store(on) },
		"unheard":  func(w *cable, on bool) { w.sends.Store(on) },
		"unspoken": func(w *cable, on bool) { w.hears.Store(on) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, w, seen := threeNodes(t)
			addr := a.named("inventory", 8080)
			gets, posts := a.load("GET", addr, 4), a.load("POST", addr, 4)
			eventually(t, "both answer", func() bool { return seen("b") > 5 && seen("c") > 5 })
			cut(w, true)
			eventually(t, "the loss is noticed", func() bool { return proxy.PeerLost(a.p, "b") })
			before := gets.ok.Load()
			eventually(t, "calls go on elsewhere", func() bool { return gets.ok.Load() > before+50 })
			w.sever() // what was on the way in the cut network is gone
			cut(w, false)
			eventually(t, "it is back", func() bool { return !proxy.PeerLost(a.p, "b") })
			back := seen("b")
			eventually(t, "it is used again", func() bool { return seen("b") > back })
			gets.end()
			posts.end()
			if n := gets.failed.Load(); n > 0 {
				t.Errorf("%d calls failed that may be repeated", n)
			}
			if n := posts.failed.Load(); n > 4 {
				t.Errorf("%d calls failed, of 4 at a time", n)
			}
		})
	}
}

// A node that is killed fails what it had, and what may be repeated goes elsewhere.
func TestMeshKilledNode(t *testing.T) {
	a, w, seen := threeNodes(t)
	addr := a.named("inventory", 8080)
	gets := a.load("GET", addr, 8)
	for range 5 {
		n := seen("b")
		eventually(t, "it is used", func() bool { return seen("b") > n })
		w.sever()
	}
	gets.end()
	if n := gets.failed.Load(); n > 0 {
		t.Errorf("%d calls failed", n)
	}
}

// A node whose listener goes away and comes back, as at an upgrade, fails nothing.
func TestMeshGoAwayUnderLoad(t *testing.T) {
	m, a, b := newPairOfNodes(t)
	b.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		io.WriteString(rw, "ok")
	}))
	addr := a.named("inventory", 8080)
	posts := a.load("POST", addr, 8)
	cfg := m.ca.config("b")
	for range 5 {
		n := posts.ok.Load()
		eventually(t, "calls", func() bool { return posts.ok.Load() > n+50 })
		old := b.stop
		b.serve(cfg)
		old()
	}
	posts.end()
	if n := posts.failed.Load(); n > 0 {
		t.Errorf("%d of %d failed", n, n+posts.ok.Load())
	}
}

func TestMeshGRPC(t *testing.T) {
	m := newMesh(t, "a", "b")
	m.install(inventory(protocol(fleet.GRPC), at("inventory-1@b")), orders(at("orders-1@a")))
	stock := startInventory(t, "inventory-1")
	m.nodes["b"].p.Attach("inventory-1", to(stock.addr))
	a := m.nodes["a"]
	cc := (&shop{t: t, p: a.p}).clientAt(a.named("inventory", 8080))
	for range 20 {
		if got, err := get(context.Background(), cc, "hello"); err != nil || got != "hello" {
			t.Fatalf("%q %v", got, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := get(ctx, cc, "hang"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("deadline: %v", err)
	}
	if err := <-stock.ended; !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		t.Errorf("the work ended by %v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	go func() { time.Sleep(50 * time.Millisecond); cancel() }()
	if _, err := get(ctx, cc, "hang"); status.Code(err) != codes.Canceled {
		t.Errorf("cancel: %v", err)
	}
	<-stock.ended
	eventually(t, "the streams end", func() bool { return proxy.PeerStreams(a.p) == 0 })
}

// Ten thousand calls, broken calls and tunnels leave nothing behind.
func TestMeshChurn(t *testing.T) {
	m := newMesh(t, "a", "b")
	m.install(inventory(at("inventory-1@b")), orders(at("orders-1@a"), func(s *fleet.Service) {
		s.Manifest.Calls = append(s.Manifest.Calls, fleet.Call{Service: "pipe"})
	}), func() *fleet.Service {
		s := service("pipe", 30)
		protocol(fleet.TCP)(s)
		at("pipe-1@b")(s)
		return s
	}())
	a, b := m.nodes["a"], m.nodes["b"]
	b.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
			return
		}
		_, _ = io.Copy(rw, r.Body)
	}))
	b.p.Attach("pipe-1", dialTo(b.echo().Addr().String()))
	addr, pipe := a.named("inventory", 8080), a.named("pipe", 8080)
	client := a.client()
	turn := func(i int) error {
		switch i % 20 {
		case 0:
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = io.WriteString(c, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
			return err
		case 1:
			c, err := net.Dial("tcp", pipe)
			if err != nil {
				return err
			}
			defer c.Close()
			io.WriteString(c, "ping")
			_ = c.(*net.TCPConn).CloseWrite()
			if back, err := io.ReadAll(c); string(back) != "pingend" {
				return fmt.Errorf("tunnel: %q %v", back, err)
			}
			return nil
		}
		res, err := client.Post("http://"+addr+"/", "text/plain", strings.NewReader("hello"))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); string(body) != "hello" {
			return fmt.Errorf("call: %d %q %v", res.StatusCode, body, err)
		}
		return nil
	}
	run := func(n int) {
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				for i := w; i < n; i += 16 {
					if err := turn(i); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		client.CloseIdleConnections()
		eventually(t, "the streams end", func() bool { return proxy.PeerStreams(a.p) == 0 })
	}
	run(500)
	before := runtime.NumGoroutine()
	n := 10_000
	if raceEnabled {
		n = 2000 // the rest costs a minute, and finds no more
	}
	run(n)
	eventually(t, "goroutines end", func() bool {
		runtime.GC() // ends idle walkers
		return runtime.NumGoroutine() < before+50
	})
	if d := m.dials["a>b"]; d > 4 {
		t.Errorf("%d connections between two nodes", d)
	}
}
