package proxy_test

import (
	"bytes"
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

	"github.com/gorilla/websocket"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

func TestWebSocket(t *testing.T) {
	w := newWorld(t, proxy.Config{Timeout: 300 * time.Millisecond, Park: 50 * time.Millisecond}, inventory(), orders())
	up := websocket.Upgrader{}
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(rw, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, data, err := c.ReadMessage()
			if err != nil {
				return
			}
			c.WriteMessage(kind, bytes.ToUpper(data))
		}
	}))
	h := http.Header{"X-Request-Id": {"ws-1"}}
	c, _, err := websocket.DefaultDialer.Dial("ws://"+w.named("inventory", 80)+"/chat", h)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		text := strings.Repeat("x", 1<<(4*i))
		c.WriteMessage(websocket.TextMessage, []byte(text))
		if _, back, err := c.ReadMessage(); err != nil || string(back) != strings.ToUpper(text) {
			t.Fatalf("message %d: %d bytes, %v", i, len(back), err)
		}
		time.Sleep(100 * time.Millisecond) // longer in all than any call may take: upgrades are exempt
	}
	c.Close()
	o := w.observed("ws-1")
	if o.Kind != fleet.KindStream || o.Status != 101 || o.Path != "/chat" || o.BytesIn < 4096 || o.BytesOut < 4096 || o.Failed() {
		t.Errorf("observed %+v", o)
	}
}

func TestTunnel(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(protocol(fleet.TCP)), orders())
	l := w.echo()
	w.p.Attach("inventory-1", dialTo(l.Addr().String()))
	addr := w.named("inventory", 8080)
	c, r := w.raw(addr)
	text := strings.Repeat("0123456789", 100_000)
	go func() {
		io.WriteString(c, text)
		c.(*net.TCPConn).CloseWrite() // the answer comes after the end of the question
	}()
	back, err := io.ReadAll(r)
	if err != nil || string(back) != text+"end" {
		t.Errorf("%d bytes back, %v", len(back), err)
	}
	eventually(t, "the tunnel is counted", func() bool {
		e := w.recorder.Edges()
		return len(e) == 1 && e[0].Requests == 1 && e[0].Protocol == fleet.TCP && e[0].Errors == 0
	})
}

// A tunnel whose callee resets it has failed, on one node and over two; one that its caller resets has not.
func TestTunnelBreaks(t *testing.T) {
	one := newWorld(t, proxy.Config{}, inventory(protocol(fleet.TCP)), orders())
	_, near, far := newPairOfNodes(t, protocol(fleet.TCP))
	for name, nodes := range map[string][2]*world{"one node": {one, one}, "two nodes": {near.world, far.world}} {
		t.Run(name, func(t *testing.T) {
			w := nodes[0]
			l := w.listen()
			defer l.Close()
			nodes[1].p.Attach("inventory-1", dialTo(l.Addr().String()))
			addr := w.named("inventory", 8080)
			errors := func(n, all uint64) func() bool {
				return func() bool { e := w.recorder.Edges(); return len(e) == 1 && e[0].Errors == n && e[0].Requests == all }
			}
			asked := func() (caller, callee net.Conn) {
				caller, _ = w.raw(addr)
				io.WriteString(caller, "x")
				callee, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				io.ReadFull(callee, make([]byte, 1))
				return caller, callee
			}
			reset := func(c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() }

			caller, callee := asked()
			caller.(*net.TCPConn).CloseWrite()
			io.ReadAll(callee) // the end has come through
			reset(callee)
			io.ReadAll(caller)
			eventually(t, "the callee's reset is a failure", errors(1, 1))
			eventually(t, "its record says so", func() bool {
				f := w.recorder.Failures(1)
				return len(f) == 1 && f[0].Kind == fleet.KindStream && fleet.Reason(f[0].Reason) == fleet.ReasonUpstreamReset
			})
			caller, callee = asked()
			reset(caller)
			io.ReadAll(callee)
			callee.Close()
			eventually(t, "the caller's is none", errors(1, 2))
		})
	}
}

// echo answers with what it reads, and `end` once that has ended.
func (w *world) echo() net.Listener {
	l := w.listen()
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
				io.WriteString(c, "end")
			}()
		}
	}()
	return l
}

func TestNeedAndEgress(t *testing.T) {
	l := (&world{t: t}).echo()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	w := newWorld(t, proxy.Config{}, inventory(), orders(func(s *fleet.Service) {
		s.Manifest.Needs = []fleet.Need{{Name: "db", Port: 5432, Local: true, Bound: l.Addr().String()}}
		s.Manifest.Egress = []fleet.HostPort{{Host: "localhost.", Port: 1}, {Host: "127.0.0.1", Port: port}}
	}))
	for _, at := range []struct {
		host string
		port uint16
	}{{"db", 5432}, {"127.0.0.1", 5432}, {"localhost", 5432}, {"127.0.0.1", port}} {
		c, r := w.raw(w.named(at.host, at.port))
		io.WriteString(c, "ping")
		c.(*net.TCPConn).CloseWrite()
		if back, err := io.ReadAll(r); string(back) != "pingend" {
			t.Errorf("%s:%d: %q %v", at.host, at.port, back, err)
		}
	}
	eventually(t, "edges", func() bool {
		to := map[string]uint64{}
		for _, e := range w.recorder.Edges() {
			to[e.To] = e.Requests
		}
		return to["orders.db"] == 3 && to[fmt.Sprintf("127.0.0.1:%d", port)] == 1
	})
}

func TestCallsWaitForAnInstance(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(func(s *fleet.Service) { s.Starting, s.Endpoints = true, nil }), orders())
	addr := w.named("inventory", 80)
	answered := make(chan string, 1)
	go func() {
		_, body := w.get("http://" + addr)
		answered <- body
	}()
	time.Sleep(20 * time.Millisecond)
	w.install(inventory(), orders()) // placed, not attached yet
	time.Sleep(20 * time.Millisecond)
	select {
	case b := <-answered:
		t.Fatalf("answered %q before there was an instance", b)
	default:
	}
	w.attach("inventory-1", http.HandlerFunc(hello))
	if b := <-answered; b != "hello" {
		t.Errorf("%q", b)
	}
}

func TestNoEndpoint(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(func(s *fleet.Service) { s.Endpoints = nil }), orders(func(s *fleet.Service) {
		s.Manifest.Calls[0].Timeout = fleet.Duration(100 * time.Millisecond)
	}))
	addr := w.named("inventory", 80)
	if res, _ := w.get("http://" + addr); res.StatusCode != 503 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonNoEndpoint) {
		t.Errorf("none expected: %s %v", res.Status, res.Header)
	}
	w.install(inventory(), w.snapshot.Services[1])
	if res, body := w.get("http://" + addr); res.StatusCode != 503 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonNoEndpoint) {
		t.Errorf("not attached: %s %v %s", res.Status, res.Header, body)
	}
	l := w.listen()
	l.Close()
	w.p.Attach("inventory-1", dialTo(l.Addr().String()))
	if res, _ := w.get("http://" + addr); res.StatusCode != 503 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonConnectFailed) {
		t.Errorf("refuses connections: %s %v", res.Status, res.Header)
	}
}

func TestDeadline(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders(func(s *fleet.Service) {
		s.Manifest.Calls[0].Timeout = fleet.Duration(100 * time.Millisecond)
	}))
	cancelled := make(chan bool, 2)
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			rw.Header().Set("Content-Length", "100")
			io.WriteString(rw, "x")
			http.NewResponseController(rw).Flush()
		}
		<-r.Context().Done()
		cancelled <- true
	}))
	addr := w.named("inventory", 80)
	res, body := w.get("http://" + addr)
	if res.StatusCode != 504 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonTimeout) {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	contains(t, body, "100ms", "timeout:")
	<-cancelled // the application is told, by the end of its connection
	res, err := w.client().Get("http://" + addr + "/body")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("a short body looked whole")
	}
	<-cancelled
}

func TestCallerGone(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	began, cancelled := make(chan bool, 1), make(chan bool, 1)
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		io.ReadAll(r.Body)
		if r.URL.Path == "/stream" {
			http.NewResponseController(rw).Flush()
		}
		began <- true
		<-r.Context().Done()
		cancelled <- true
	}))
	addr := w.named("inventory", 80)
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: gone\r\n\r\n",
		"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		c, _ := w.raw(addr)
		io.WriteString(c, text)
		<-began
		c.Close()
		<-cancelled
	}
	c, _ := w.raw(addr)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
	time.Sleep(10 * time.Millisecond)
	io.WriteString(c, "hello") // carried by the pump
	<-began
	c.Close()
	<-cancelled
	if o := w.observed("gone"); o.Reason != string(fleet.ReasonCallerGone) {
		t.Errorf("observed %+v", o)
	}
}

// flaky closes each connection after some requests, without an answer, and counts what it saw.
func flaky(t *testing.T, after int) (addr string, seen *atomic.Int32) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	seen = new(atomic.Int32)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveFlaky(c, after, seen)
		}
	}()
	return l.Addr().String(), seen
}

func serveFlaky(c net.Conn, after int, seen *atomic.Int32) {
	defer c.Close()
	b := make([]byte, 64<<10)
	for range after {
		if n, err := c.Read(b); err != nil || n == 0 {
			return
		}
		seen.Add(1)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
	if n, err := c.Read(b); err == nil && !asksForHTTP2(b[:n]) {
		seen.Add(1)
	}
}

// asksForHTTP2: a connection that begins with the preface (RFC 9113 section 3.4) finds out what is spoken, and
// carries no request before it is answered.
func asksForHTTP2(b []byte) bool { return bytes.HasPrefix(b, []byte("PRI * HTTP/2.0\r\n")) }

func TestRetry(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(instances("a", "b")), orders())
	bad, seen := flaky(t, 0)
	w.p.Attach("a", dialTo(bad))
	w.attach("b", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { io.Copy(rw, r.Body) }))
	addr := w.named("inventory", 80)
	for _, c := range []struct {
		method, key string
		repeats     bool
	}{{"GET", "", true}, {"PUT", "", true}, {"POST", "", false}, {"POST", "k", true}} {
		seen.Store(0)
		failed := 0
		for i := 0; i < 400 && (seen.Load() == 0 || i < 20); i++ {
			w.p.Attach("a", dialTo(bad)) // as new: what failed before would hardly be asked
			r := must(http.NewRequest(c.method, "http://"+addr, strings.NewReader("payload")))
			if c.key != "" {
				r.Header.Set("Idempotency-Key", c.key)
			}
			res, body := w.do(r)
			if res.StatusCode != 200 {
				failed++
			} else if body != "payload" {
				t.Fatalf("%s: %q", c.method, body)
			}
		}
		if seen.Load() == 0 || (failed == 0) != c.repeats {
			t.Errorf("%s (key %q): %d failed, %d seen by the failing instance", c.method, c.key, failed, seen.Load())
		}
	}
}

// The application saw nothing of what went out on a connection that it had closed: even a POST is
// repeated.
func TestStaleConnections(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	addr, seen := flaky(t, 1)
	w.p.Attach("inventory-1", dialTo(addr))
	closing, closed := w.closer("ok")
	w.p.Attach("inventory-1", dialTo(closing))
	named := w.named("inventory", 80)
	for i := range 200 {
		r := must(http.NewRequest("POST", "http://"+named, strings.NewReader("x")))
		if res, body := w.do(r); res.StatusCode != 200 {
			t.Fatalf("request %d: %s %s", i, res.Status, body)
		}
		<-closed
	}
	if seen.Load() != 0 {
		t.Error("the first instance was asked")
	}
}

// closer answers one request per connection and closes it, without saying so to the proxy.
func (w *world) closer(body string) (addr string, closed <-chan bool) {
	done := make(chan bool, 1)
	l := w.listen()
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				b := make([]byte, 64<<10)
				if _, err := c.Read(b); err == nil {
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				}
				c.Close()
				done <- true
			}()
		}
	}()
	return l.Addr().String(), done
}

func TestDeliveriesAreNeverRepeated(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(func(s *fleet.Service) {
		s.Manifest.Subscribes = []fleet.Subscription{{Topic: "t", Method: "POST", Path: "/events"}}
	}), orders())
	addr, seen := flaky(t, 0)
	w.p.Attach("inventory-1", dialTo(addr))
	r := must(http.NewRequest("POST", "http://inventory/events", strings.NewReader("x")))
	r.Header.Set("Idempotency-Key", "k")
	res, err := w.p.Transport(fleet.Events).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 502 || seen.Load() != 1 {
		t.Errorf("%s, seen %d times", res.Status, seen.Load())
	}
	res, err = w.p.Transport(fleet.Events).RoundTrip(must(http.NewRequest("POST", "http://inventory/other", nil)))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 403 {
		t.Errorf("outside the subscription: %s", res.Status)
	}
}

// An instance is replaced under constant load: not one request fails.
func TestDrainUnderLoad(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(instances("v0")), orders())
	w.attach("v0", slowly(time.Millisecond))
	addr := w.named("inventory", 80)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var requests atomic.Int64
	for range 8 {
		wg.Go(func() { w.load(addr, stop, &requests) })
	}
	for v := 1; v <= 5; v++ {
		from := requests.Load()
		eventually(t, "load", func() bool { return requests.Load() > from+50 })
		old, new := fmt.Sprintf("v%d", v-1), fmt.Sprintf("v%d", v)
		w.attach(new, slowly(time.Millisecond))
		w.install(inventory(instances(old, new)), orders())
		w.install(inventory(instances(new)), orders())
		if err := w.p.Drain(context.Background(), old); err != nil {
			t.Fatal(err)
		}
		w.p.Detach(old)
	}
	close(stop)
	wg.Wait()
}

func slowly(d time.Duration) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(d)
		io.Copy(rw, r.Body)
	})
}

func (w *world) load(addr string, stop <-chan struct{}, n *atomic.Int64) {
	client := w.client()
	for {
		select {
		case <-stop:
			return
		default:
		}
		res, err := client.Post("http://"+addr, "text/plain", strings.NewReader("x"))
		if err != nil {
			w.t.Error(err)
			return
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || string(body) != "x" {
			w.t.Errorf("%s %q", res.Status, body)
			return
		}
		n.Add(1)
	}
}

func TestDrainWaitsForExchanges(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	began, finish := make(chan bool), make(chan bool)
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		began <- true
		<-finish
		io.WriteString(rw, "done")
	}))
	addr := w.named("inventory", 80)
	answered := make(chan string, 1)
	go func() {
		_, body := w.get("http://" + addr)
		answered <- body
	}()
	<-began
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := w.p.Drain(ctx, "inventory-1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drained with an exchange in progress: %v", err)
	}
	close(finish)
	if err := w.p.Drain(context.Background(), "inventory-1"); err != nil {
		t.Error(err)
	}
	if body := <-answered; body != "done" {
		t.Errorf("%q", body)
	}
}

func TestBalancing(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(instances("a", "b", "c", "d")), orders())
	var hits [3]atomic.Int64
	for i, name := range []string{"a", "b", "c"} {
		w.attach(name, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits[i].Add(1) }))
	}
	dead := w.listen()
	dead.Close()
	w.p.Attach("d", dialTo(dead.Addr().String()))
	addr := w.named("inventory", 80)
	client := w.client()
	eventually(t, "each living instance has its share", func() bool {
		for range 50 {
			res, err := client.Post("http://"+addr, "", nil)
			if err != nil || res.StatusCode != 200 {
				t.Fatal(res, err)
			}
			res.Body.Close()
		}
		return hits[0].Load() > 20 && hits[1].Load() > 20 && hits[2].Load() > 20
	})
}

func TestParking(t *testing.T) {
	w := newWorld(t, proxy.Config{Park: 30 * time.Millisecond}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(hello))
	addr := w.named("inventory", 80)
	type client struct {
		net.Conn
		ask func() string
	}
	var clients []client
	for range 20 {
		c, r := w.raw(addr)
		clients = append(clients, client{c, func() string {
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			_, body := w.readResponse(r, "GET")
			return body
		}})
	}
	for range 3 {
		for _, c := range clients {
			if b := c.ask(); b != "hello" {
				t.Fatal(b)
			}
		}
		eventually(t, "all are parked", func() bool { return proxy.Parked(w.p) == len(clients) })
	}
	for _, c := range clients[:10] {
		c.Close()
	}
	eventually(t, "the closed ones are forgotten", func() bool { return proxy.Parked(w.p) == 10 })
}

// Of more than a thousand connections those that come last are parked long before Config.Park, and go on as ever.
func TestCrowdIsParkedSoon(t *testing.T) {
	w := newWorld(t, proxy.Config{Park: time.Hour}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(hello))
	addr := w.named("inventory", 80)
	var clients []func() string
	for range 1100 {
		c, r := w.raw(addr)
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		clients = append(clients, func() string {
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			_, body := w.readResponse(r, "GET")
			return body
		})
	}
	eventually(t, "some are parked", func() bool { return proxy.Parked(w.p) > 0 })
	for range 2 {
		for _, ask := range clients {
			if b := ask(); b != "hello" {
				t.Fatal(b)
			}
		}
	}
}

// What a thousand connections had before they were parked is given back at once, not when Go next collects.
func TestParkedCrowdGivesMemoryBack(t *testing.T) {
	w := newWorld(t, proxy.Config{Park: 30 * time.Millisecond}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(hello))
	addr := w.named("inventory", 80)
	forced := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumForcedGC
	}
	before := forced()
	for range 1000 {
		c, r := w.raw(addr)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, body := w.readResponse(r, "GET"); body != "hello" {
			t.Fatal(body)
		}
	}
	eventually(t, "memory is given back", func() bool { return forced() > before })
}
