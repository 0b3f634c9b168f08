package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/wire/h2"
)

// newPairOfNodes has orders on a and inventory on b.
func newPairOfNodes(t *testing.T, edit ...func(*fleet.Service)) (*mesh, *meshNode, *meshNode) {
	m := newMesh(t, "a", "b")
	m.install(inventory(append(edit, at("inventory-1@b"))...), orders(at("orders-1@a")))
	return m, m.nodes["a"], m.nodes["b"]
}

func TestMeshHTTP1(t *testing.T) {
	m, a, b := newPairOfNodes(t)
	b.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if strings.HasPrefix(name, "Shoal-") && name != "Shoal-Caller" && name != "Shoal-Timeout-Ms" {
				t.Errorf("the application saw %s", name)
			}
		}
		if r.ProtoMajor != 1 {
			t.Errorf("HTTP/1.1 became %s", r.Proto)
		}
		body, _ := io.ReadAll(r.Body)
		rw.Header().Set("X-Path", r.URL.RequestURI())
		rw.Header().Set("X-Host", r.Host)
		rw.Header().Set("X-Mine", r.Header.Get("X-Mine"))
		rw.Header().Set("X-Caller", r.Header.Get("Shoal-Caller"))
		rw.Header().Set("X-Id", r.Header.Get("X-Request-Id"))
		switch r.URL.Path {
		case "/empty":
			rw.WriteHeader(204)
		case "/stream":
			for i := range 3 {
				fmt.Fprintf(rw, "%d", i)
				rw.(http.Flusher).Flush()
			}
		default:
			fmt.Fprintf(rw, "%s:%s", r.Method, body)
		}
	}))
	addr := a.named("inventory", 8080)
	client := a.client()
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", "/x?q=1", "", "GET:"},
		{"POST", "/y", "hello", "POST:hello"},
		{"PUT", "/big", strings.Repeat("z", 300<<10), "PUT:" + strings.Repeat("z", 300<<10)},
		{"HEAD", "/h", "", ""},
		{"GET", "/empty", "", ""},
		{"GET", "/stream", "", "012"},
		{"POST", "/chunked", "pieces", "POST:pieces"},
	} {
		for range 3 {
			r := must(http.NewRequest(c.method, "http://"+addr+c.path, strings.NewReader(c.body)))
			if c.path == "/chunked" {
				r.Body = io.NopCloser(io.MultiReader(strings.NewReader("pie"), strings.NewReader("ces")))
				r.ContentLength = -1
			}
			r.Header.Set("X-Mine", "yes")
			r.Header.Set("X-Request-Id", "mesh-1")
			r.Header.Set("Shoal-Caller", "forged")
			res, err := client.Do(r)
			if err != nil {
				t.Fatalf("%s %s: %v", c.method, c.path, err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if string(body) != c.want || err != nil {
				t.Fatalf("%s %s: %d %.40q %v", c.method, c.path, res.StatusCode, body, err)
			}
			if h := res.Header; h.Get("X-Path") != c.path || h.Get("X-Host") != addr || h.Get("X-Mine") != "yes" || h.Get("X-Caller") != "orders" || h.Get("X-Id") != "mesh-1" {
				t.Errorf("%s %s: %v", c.method, c.path, h)
			}
		}
	}
	eventually(t, "counted once, at the caller's", func() bool {
		e := a.recorder.Edges()
		return len(e) == 1 && e[0].Requests == 21 && len(b.recorder.Edges()) == 0
	})
	if n := m.dials["a>b"]; n > 2 { // one for calls, one for large bodies
		t.Errorf("%d connections between two nodes", n)
	}
}

func TestMeshBroker(t *testing.T) {
	m := newMesh(t, "a", "hub")
	m.install(inventory(at("inventory-1@a"), func(s *fleet.Service) {
		s.Manifest.Subscribes = []fleet.Subscription{{Topic: "t", Method: "POST", Path: "/events/t"}}
	}), orders(at("orders-1@a")))
	a := m.nodes["a"]
	addr := a.named("events", 80)
	res, body := a.do(must(http.NewRequest("POST", "http://"+addr+"/orders.placed", strings.NewReader("{}"))))
	if res.StatusCode != 202 || body != "POST /orders.placed {} by orders/orders" {
		t.Errorf("%s %q", res.Status, body)
	}
	a.attach("inventory-1", http.HandlerFunc(hello))
	got, err := m.nodes["hub"].p.Transport(fleet.Events).RoundTrip(must(http.NewRequest("POST", "http://inventory/events/t", strings.NewReader("x"))))
	if err != nil || got.StatusCode != 200 {
		t.Fatalf("%v %v", got, err)
	}
	got.Body.Close()
}

// A node that says to be another, or to run what it does not, is refused.
func TestMeshForgedNames(t *testing.T) {
	m := newMesh(t, "a", "b", "c")
	m.install(inventory(at("inventory-1@b")), orders(at("orders-1@a")))
	m.nodes["b"].attach("inventory-1", http.HandlerFunc(hello))
	forger := m.ca.config("c")
	ask := func(field string) int {
		nc, err := m.dial(context.Background(), "c", "b", forger)
		if err != nil {
			t.Fatal(err)
		}
		return askPeer(t, nc, field)
	}
	for field, want := range map[string]int{
		"a orders/orders-1 inventory/inventory-1:8080 1": 403, // c claims to be a
		"c orders/orders-1 inventory/inventory-1:8080 1": 403, // c does not run orders
		"hub events/ inventory/inventory-1:8080 1":       403,
		"c operator/ inventory/inventory-1:8080 1":       403, // nobody's socket reaches from another machine
		"nonsense": 403,
	} {
		if got := ask(field); got != want {
			t.Errorf("%q: %d", field, got)
		}
	}
	own := m.ca.config("a")
	tunnel := must(m.dial(context.Background(), "a", "b", own))
	if got := askPeerWith(t, tunnel, &h2.Head{Method: "CONNECT", Authority: "inventory"}, "a orders/orders-1 inventory/inventory-1:8080 1"); got != 403 {
		t.Errorf("a tunnel around the rules: %d", got)
	}
	nc, err := m.dial(context.Background(), "a", "b", own)
	if err != nil {
		t.Fatal(err)
	}
	if got := askPeer(t, nc, "a orders/orders-1 inventory/inventory-1:8080 1"); got != 200 {
		t.Errorf("the truth: %d", got)
	}
}

func TestMeshTunnelHalfClose(t *testing.T) {
	_, a, b := newPairOfNodes(t, protocol(fleet.TCP))
	b.p.Attach("inventory-1", dialTo(b.echo().Addr().String()))
	addr := a.named("inventory", 8080)
	for range 3 {
		c, _ := a.raw(addr)
		text := strings.Repeat("ping", 100_000)
		go func() {
			io.WriteString(c, text)
			c.(*net.TCPConn).CloseWrite()
		}()
		if back, err := io.ReadAll(c); string(back) != text+"end" {
			t.Fatalf("%d bytes, %v", len(back), err)
		}
	}
	// A caller that resets is one over there, too.
	c, _ := a.raw(addr)
	io.WriteString(c, "x")
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	eventually(t, "the streams end", func() bool { return proxy.PeerStreams(a.p) == 0 && proxy.PeerStreams(b.p) == 0 })
}

func TestMeshUpgrade(t *testing.T) {
	_, a, b := newPairOfNodes(t)
	b.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-Websocket-Key") != "k" {
			rw.Header().Set("X-Saw", fmt.Sprint(r.Header))
			http.Error(rw, "no", http.StatusUpgradeRequired)
			return
		}
		c, rw2, _ := rw.(http.Hijacker).Hijack()
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\nhi ")
		io.Copy(c, rw2)
		io.WriteString(c, "end")
	}))
	addr := a.named("inventory", 8080)
	c, r := a.raw(addr)
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != "a" || res.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("%v %v", res, err)
	}
	io.WriteString(c, "there ")
	c.(*net.TCPConn).CloseWrite()
	if back, err := io.ReadAll(r); string(back) != "hi there end" || err != nil {
		t.Errorf("%q %v", back, err)
	}
	c, r = a.raw(addr)
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
	res, err = http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusUpgradeRequired {
		t.Fatalf("%v %v", res, err)
	}
	if body, _ := io.ReadAll(res.Body); string(body) != "no\n" {
		t.Errorf("%q", body)
	}
}

// The caller that leaves cancels the work on the other node at once.
func TestMeshCallerLeaves(t *testing.T) {
	_, a, b := newPairOfNodes(t)
	began, ended := make(chan bool, 1), make(chan bool, 1)
	b.attach("inventory-1", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		began <- true
		<-r.Context().Done()
		ended <- true
	}))
	c, _ := a.raw(a.named("inventory", 8080))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-began
	c.Close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the work went on")
	}
	eventually(t, "the streams end", func() bool { return proxy.PeerStreams(a.p) == 0 && proxy.PeerStreams(b.p) == 0 })
}

func TestMeshDeadline(t *testing.T) {
	m := newMesh(t, "a", "b")
	m.install(inventory(at("inventory-1@b")), orders(at("orders-1@a"), func(s *fleet.Service) {
		s.Manifest.Calls[0].Timeout = fleet.Duration(300 * time.Millisecond)
	}))
	ended := make(chan bool, 1)
	m.nodes["b"].attach("inventory-1", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		ended <- true
	}))
	res, body := m.nodes["a"].get("http://" + m.nodes["a"].named("inventory", 8080) + "/")
	if res.StatusCode != 504 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonTimeout) {
		t.Errorf("%s %q", res.Status, body)
	}
	<-ended
}

// A slow reader slows its own writer, and nobody else.
func TestMeshSlowReader(t *testing.T) {
	_, a, b := newPairOfNodes(t)
	b.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			for range 64 << 10 { // 64 MB
				if _, err := rw.Write(make([]byte, 1024)); err != nil {
					return
				}
			}
			return
		}
		io.WriteString(rw, "fast")
	}))
	addr := a.named("inventory", 8080)
	for range 4 {
		c, r := a.raw(addr)
		io.WriteString(c, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := r.Peek(1); err != nil {
			t.Fatal(err)
		}
	}
	client := a.client()
	for range 200 {
		res, err := client.Get("http://" + addr + "/fast")
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(res.Body); string(body) != "fast" {
			t.Fatalf("%q", body)
		}
		res.Body.Close()
	}
}

func TestMeshInterimAndEarlyAnswer(t *testing.T) {
	_, a, b := newPairOfNodes(t)
	b.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			rw.Header().Set("Connection", "close")
			http.Error(rw, "enough", http.StatusRequestEntityTooLarge)
			return
		}
		rw.Header().Set("Link", "</x>")
		rw.WriteHeader(103)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "got %s", body)
	}))
	addr := a.named("inventory", 8080)
	c, r := a.raw(addr)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	statuses := []int{}
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		statuses = append(statuses, res.StatusCode)
		if res.StatusCode == 103 {
			continue
		}
		if res.StatusCode == 100 {
			io.WriteString(c, "body")
			continue
		}
		if body, _ := io.ReadAll(res.Body); string(body) != "got body" {
			t.Errorf("%q", body)
		}
		break
	}
	if fmt.Sprint(statuses) != "[103 100 200]" {
		t.Errorf("%v", statuses)
	}
	c, r = a.raw(addr)
	fmt.Fprintf(c, "POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nstart", 64<<20)
	res, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil || res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatalf("%v %v", res, err)
	}
}

// Calls stay on the node while its places do the work; what they cannot take in time spills over.
func TestMeshSameNodeFirst(t *testing.T) {
	m := newMesh(t, "a", "b")
	m.install(inventory(at("inventory-1@a", "inventory-2@b")), orders(at("orders-1@a")))
	a, b := m.nodes["a"], m.nodes["b"]
	var away atomic.Int64
	const work = 20 * time.Millisecond // beside which what the machine adds is little
	slow := make(chan bool)
	a.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-slow
		}
		time.Sleep(work)
		io.WriteString(rw, "a")
	}))
	b.attach("inventory-2", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		away.Add(1)
		time.Sleep(work)
		io.WriteString(rw, "b")
	}))
	addr := a.named("inventory", 8080)
	for range 40 {
		a.get("http://" + addr + "/")
	}
	if n := away.Load(); n > 10 {
		t.Errorf("%d of 40 calls left a node that had nothing else to do", n)
	}
	var wg sync.WaitGroup
	client := a.client()
	for range 40 {
		wg.Go(func() {
			if res, err := client.Get("http://" + addr + "/slow"); err == nil {
				res.Body.Close()
			}
		})
	}
	n := away.Load()
	eventually(t, "calls spill over", func() bool { return away.Load() > n+5 })
	close(slow)
	wg.Wait()
}
