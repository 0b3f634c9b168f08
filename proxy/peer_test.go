package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/wire/h2"
)

// pair is a hub and a node, each with a proxy, that reach each other over Unix sockets. The hub hosts
// `events`; the node runs orders and inventory.
type pair struct{ hub, node *world }

func newPair(t *testing.T, services ...*fleet.Service) pair {
	dir := t.TempDir()
	sockets := map[string]string{"hub": filepath.Join(dir, "hub.sock"), "local": filepath.Join(dir, "node.sock")}
	dial := func(ctx context.Context, node string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", sockets[node])
	}
	p := pair{
		hub:  newWorld(t, proxy.Config{Node: "none", Peer: dial, Builtin: map[string]func(net.Conn){"events": serveEvents}}, services...),
		node: newWorld(t, proxy.Config{Node: "local", Peer: dial, HubServices: []string{"events", "pubsub"}}, services...),
	}
	p.hub.servePeers(sockets["hub"])
	p.node.servePeers(sockets["local"])
	return p
}

func (w *world) servePeers(path string) {
	l, err := net.Listen("unix", path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.background(func(ctx context.Context) error { return w.p.ServePeer(ctx, l) })
}

// serveEvents is a broker as the hub's proxy sees one.
func serveEvents(c net.Conn) {
	defer c.Close()
	caller := c.(interface{ Caller() string }).Caller()
	for r := bufio.NewReader(c); ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(req.Body)
		text := fmt.Sprintf("%s %s %s by %s/%s", req.Method, req.URL.Path, body, caller, req.Header.Get("Shoal-Caller"))
		fmt.Fprintf(c, "HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	}
}

func TestPublishThroughTheHub(t *testing.T) {
	p := newPair(t, inventory(), orders())
	addr := p.node.named("events", 80)
	for range 3 {
		r := must(http.NewRequest("POST", "http://"+addr+"/orders.placed", strings.NewReader("{}")))
		r.Header.Set("X-Request-Id", "pub-1")
		res, body := p.node.do(r)
		if res.StatusCode != 202 || body != "POST /orders.placed {} by orders/orders" {
			t.Errorf("%s %q", res.Status, body)
		}
	}
	eventually(t, "the node counts", func() bool {
		e := p.node.recorder.Edges()
		return len(e) == 1 && e[0].From == "orders" && e[0].To == "events" && e[0].Requests == 3
	})
	if e := p.hub.recorder.Edges(); len(e) != 0 {
		t.Errorf("counted twice: %+v", e)
	}
}

// A worker lets its node speak for a service of which nothing else is left, and takes no calls itself.
func TestWorkerSpeaksAlone(t *testing.T) {
	p := newPair(t, inventory(), orders(func(s *fleet.Service) {
		s.Endpoints = []fleet.Endpoint{{Instance: "orders-2", Node: "local", Worker: "mailer", State: fleet.Placed}}
	}))
	p.node.attach("orders-2", http.NotFoundHandler())
	r := must(http.NewRequest("POST", "http://"+p.node.named("events", 80)+"/t", strings.NewReader("{}")))
	if res, body := p.node.do(r); res.StatusCode != 202 {
		t.Errorf("a worker's publish: %s %q", res.Status, body)
	}
	res, err := p.node.p.Transport(fleet.Operator).RoundTrip(must(http.NewRequest("GET", "http://orders/", nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 503 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonNoEndpoint) {
		t.Errorf("a call to a worker: %s, reason %s", res.Status, res.Header.Get("Shoal-Reason"))
	}
}

func TestDeliveryThroughTheNode(t *testing.T) {
	p := newPair(t, inventory(func(s *fleet.Service) {
		s.Manifest.Subscribes = []fleet.Subscription{{Topic: "t", Method: "POST", Path: "/events/t"}}
	}), orders())
	p.node.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "%s by %s as %s", body, r.Header.Get("Shoal-Caller"), r.Header.Get("X-Request-Id"))
		for name := range r.Header {
			if strings.HasPrefix(name, "Shoal-") && name != "Shoal-Caller" && name != "Shoal-Timeout-Ms" {
				t.Errorf("the application saw %s", name)
			}
		}
	}))
	r := must(http.NewRequest("POST", "http://inventory/events/t", strings.NewReader("hello")))
	r.Header.Set("X-Request-Id", "delivery-1")
	res, err := p.hub.p.Transport(fleet.Events).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); string(body) != "hello by events as delivery-1" {
		t.Errorf("%s %q", res.Status, body)
	}
	eventually(t, "the hub counts", func() bool {
		e := p.hub.recorder.Edges()
		return len(e) == 1 && e[0].From == "events" && e[0].To == "inventory"
	})
}

// The hub's calls wait for an instance that its node is still starting.
func TestPeersWaitForAnInstance(t *testing.T) {
	p := newPair(t, inventory(), orders())
	answered := make(chan string, 1)
	go func() {
		res, err := p.hub.p.Transport(fleet.Operator).RoundTrip(must(http.NewRequest("GET", "http://inventory/", nil)))
		if err != nil {
			answered <- err.Error()
			return
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		answered <- string(body)
	}()
	time.Sleep(50 * time.Millisecond)
	p.node.attach("inventory-1", http.HandlerFunc(hello))
	if got := <-answered; got != "hello" {
		t.Errorf("%q", got)
	}
}

func TestTunnelThroughAPeer(t *testing.T) {
	p := newPair(t, inventory(protocol(fleet.TCP)), orders())
	p.node.p.Attach("inventory-1", dialTo(p.node.echo().Addr().String()))
	c, err := p.hub.p.Tunnel(context.Background(), fleet.Operator, "inventory", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "ping")
	c.(interface{ CloseWrite() error }).CloseWrite()
	if back, err := io.ReadAll(c); string(back) != "pingend" {
		t.Errorf("%q %v", back, err)
	}
}

func TestTunnelRefused(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	_, err := w.p.Tunnel(context.Background(), fleet.Operator, "inventory", 99)
	if err == nil || !strings.Contains(err.Error(), "8080 (http)") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err = w.p.Tunnel(ctx, fleet.Operator, "inventory", 0); err == nil {
		t.Error("opened without an instance")
	}
}

// A peer speaks only for what the snapshot places there.
func TestPeersAreNotBelieved(t *testing.T) {
	p := newPair(t, inventory(), orders(), service("web", 30))
	p.node.snapshot.Services[2].Endpoints[0].Node = "elsewhere"
	p.node.install(p.node.snapshot.Services...)
	p.node.attach("inventory-1", http.HandlerFunc(hello))
	l := p.node.listen()
	p.node.background(func(ctx context.Context) error { return p.node.p.ServePeer(ctx, l) })
	for field, status := range map[string]int{
		"local orders/orders-1 inventory/inventory-1:8080 1": 200,
		"local orders/orders-1 inventory/inventory-1:8080 2": 200,
		"local web/web-1 inventory/inventory-1:8080 1":       403,
		"hub orders/orders-1 inventory/inventory-1:8080 1":   403,
		"x orders/orders-1 inventory/inventory-1:8080 1":     403,
		"local events/ inventory/inventory-1:8080 1":         403,
		"local orders/orders-1 inventory/inventory-9:8080 1": 503,
		"local orders/orders-1 nonsense 1":                   403,
	} {
		if got := askPeer(t, must(net.Dial("tcp", l.Addr().String())), field); got != status {
			t.Errorf("%q: %d", field, got)
		}
	}
}

// askPeer makes a call as another process's proxy would, and returns the status of the answer.
func askPeer(t *testing.T, nc net.Conn, field string) int {
	t.Helper()
	return askPeerFor(t, nc, "/", field)
}

func askPeerFor(t *testing.T, nc net.Conn, path, field string) int {
	t.Helper()
	return askPeerWith(t, nc, &h2.Head{Method: "GET", Scheme: "http", Authority: "x", Path: path}, field)
}

func askPeerWith(t *testing.T, nc net.Conn, h *h2.Head, field string) int {
	t.Helper()
	h.Fields = []h2.Field{{Name: "shoal-peer", Value: field}}
	c := h2.NewClient(nc, h2.Config{})
	go func() { _ = c.Run(context.Background(), nil) }()
	defer func() { c.Close(); <-c.Done() }()
	st, err := c.Open(nil, h, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Release(nil)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	res, err := st.ReadHead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return res.Status
}

func TestTransportStreamsBothWays(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(rw)
		_ = rc.EnableFullDuplex()
		rc.Flush()
		for s := bufio.NewScanner(r.Body); s.Scan(); {
			fmt.Fprintln(rw, strings.ToUpper(s.Text()))
			rc.Flush()
		}
	}))
	in, out := io.Pipe()
	res, err := w.p.Transport("orders").RoundTrip(must(http.NewRequest("POST", "http://stock:80/", in)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r := bufio.NewReader(res.Body)
	for _, line := range []string{"one", "two"} {
		fmt.Fprintln(out, line)
		if back, err := r.ReadString('\n'); back != strings.ToUpper(line)+"\n" {
			t.Fatalf("%q %v", back, err)
		}
	}
	out.Close()
	res2, err := w.p.Transport("orders").RoundTrip(must(http.NewRequest("GET", "http://nobody/", nil)))
	if err != nil || res2.StatusCode != 404 || res2.Header.Get("Shoal-Reason") != string(fleet.ReasonUnknownService) {
		t.Errorf("%v %v", res2, err)
	}
	res2.Body.Close()
}
