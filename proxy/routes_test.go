package proxy_test

import (
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

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// routed lets inventory declare routes, and what they need.
func routed(routes ...fleet.Route) func(*fleet.Service) {
	return func(s *fleet.Service) {
		for i := range routes {
			routes[i].Line = 20 + i
		}
		s.Manifest.Routes = routes
		s.Manifest.Lines = map[string]int{"routes": 19, "allow": 9}
		for _, name := range s.Manifest.Targets() {
			s.Manifest.Calls = append(s.Manifest.Calls, fleet.Call{Service: name})
		}
	}
}

func next(edit ...func(*fleet.Service)) *fleet.Service {
	s := service("inventory-next", 18)
	for _, e := range edit {
		e(s)
	}
	return s
}

func allows(all ...fleet.Allow) func(*fleet.Service) {
	return func(s *fleet.Service) { s.Manifest.Allow = all; s.Manifest.Lines = map[string]int{"allow": 9} }
}

func handOver(name string, m fleet.Match, to ...fleet.Share) fleet.Route {
	return fleet.Route{Name: name, Match: m, Split: to}
}

// says answers with a name and the caller that it was told.
func says(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s for %s", name, r.Header.Get("Shoal-Caller"))
	})
}

// routedWorld has inventory with routes, and inventory-next, both answering with their name.
func routedWorld(t *testing.T, provider, other *fleet.Service) (w *world, addr string) {
	w = newWorld(t, proxy.Config{}, provider, other, orders())
	w.attach("inventory-1", says("inventory"))
	w.attach("inventory-next-1", says("inventory-next"))
	return w, w.named("inventory", 80)
}

func TestRoutesMatch(t *testing.T) {
	toNext := fleet.Share{Service: "inventory-next", Weight: 1}
	_, addr := routedWorld(t, inventory(routed(
		handOver("exact", fleet.Match{Path: "/exact"}, toNext),
		handOver("prefix", fleet.Match{Path: "/v2/*", Methods: []string{"GET", "PUT"}}, toNext),
		handOver("both", fleet.Match{Headers: []fleet.HeaderMatch{{Name: "x-beta", Value: "1"}, {Name: "x-debug"}}}, toNext),
		fleet.Route{Name: "named", Match: fleet.Match{Path: "/named"}},
	)), next())
	tests := []struct {
		method, path string
		header       http.Header
		want         string
	}{
		{"GET", "/exact", nil, "inventory-next"},
		{"GET", "/exact?a=b", nil, "inventory-next"},
		{"GET", "/exact/", nil, "inventory"},
		{"GET", "/v2/a/b?q", nil, "inventory-next"},
		{"PUT", "/v2/", nil, "inventory-next"},
		{"POST", "/v2/a", nil, "inventory"},
		{"GET", "/v2", nil, "inventory"},
		{"GET", "/", http.Header{"X-Beta": {"1"}, "X-Debug": {"anything"}}, "inventory-next"},
		{"GET", "/", http.Header{"X-Beta": {"0", "1"}, "X-Debug": {""}}, "inventory-next"},
		{"GET", "/", http.Header{"X-Beta": {"1"}}, "inventory"},
		{"GET", "/", http.Header{"X-Beta": {"11"}, "X-Debug": {"1"}}, "inventory"},
		{"GET", "/named", nil, "inventory"},
	}
	for name, client := range map[string]*http.Client{"HTTP/1.1": http.DefaultClient, "HTTP/2": h2c(t)} {
		for _, q := range tests {
			r := must(http.NewRequest(q.method, "http://"+addr+q.path, nil))
			for k, v := range q.header {
				r.Header[k] = v
			}
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if string(body) != q.want+" for orders" {
				t.Errorf("%s: %s %s %v: %d %s", name, q.method, q.path, q.header, res.StatusCode, body)
			}
		}
	}
}

// Records and edges name the route; a name that another service may have, too, names whose it is.
func TestRoutesAreCounted(t *testing.T) {
	w, addr := routedWorld(t, inventory(routed(
		handOver("away", fleet.Match{Path: "/a"}, fleet.Share{Service: "inventory-next", Weight: 1}),
		fleet.Route{Name: "here", Match: fleet.Match{Path: "/h"}},
	)), next())
	for i, path := range []string{"/a", "/h", "/"} {
		r := must(http.NewRequest("GET", "http://"+addr+path, nil))
		r.Header.Set("X-Request-Id", fmt.Sprintf("route-%d", i))
		w.do(r)
	}
	if o := w.observed("route-0"); o.Route != "inventory/away" || o.Callee != "inventory-next" || o.Caller != "orders" {
		t.Errorf("%+v", o)
	}
	if o := w.observed("route-1"); o.Route != "here" || o.Callee != "inventory" {
		t.Errorf("%+v", o)
	}
	w.observed("route-2") // the edge is counted before
	var edges []string
	for _, e := range w.recorder.Edges() {
		edges = append(edges, fmt.Sprintf("%s %s %s %d", e.From, e.To, e.Route, e.Requests))
	}
	if got := strings.Join(edges, "\n"); got != "orders inventory default 1\norders inventory here 1\norders inventory-next inventory/away 1" {
		t.Errorf("edges:\n%s", got)
	}
}

// dialGRPC returns a real client of gRPC.
func (w *world) dialGRPC(addr string) *grpc.ClientConn {
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { cc.Close() })
	return cc
}

func TestRoutesOfGRPC(t *testing.T) {
	w := newWorld(t, proxy.Config{}, orders(),
		inventory(protocol(fleet.GRPC), routed(handOver("get", fleet.Match{Path: "/shop.Inventory/Get", Headers: []fleet.HeaderMatch{{Name: "beta", Value: "yes"}}}, fleet.Share{Service: "inventory-next", Weight: 1}))),
		next(protocol(fleet.GRPC)))
	w.p.Attach("inventory-1", to(startInventory(t, "inventory-1").addr))
	w.p.Attach("inventory-next-1", to(startInventory(t, "inventory-next-1").addr))
	cc := w.dialGRPC(w.named("inventory", 8080))
	for beta, want := range map[string]string{"yes": "inventory-next-1", "no": "inventory-1"} {
		var head metadata.MD
		out, err := get(metadata.AppendToOutgoingContext(t.Context(), "beta", beta), cc, "a", grpc.Header(&head))
		if err != nil || out != "a" || strings.Join(head["instance"], "") != want || strings.Join(head["caller"], "") != "orders" {
			t.Errorf("%s: %q %v %v", beta, out, head, err)
		}
	}
}

func TestAllowOfGRPC(t *testing.T) {
	w := newWorld(t, proxy.Config{}, orders(), inventory(protocol(fleet.GRPC), allows(fleet.Allow{Caller: "orders", GRPC: []string{"shop.Inventory/Get", "shop.Other/*"}})))
	w.p.Attach("inventory-1", to(startInventory(t, "inventory-1").addr))
	cc := w.dialGRPC(w.named("inventory", 8080))
	if _, err := get(t.Context(), cc, "a"); err != nil {
		t.Error(err)
	}
	err := cc.Invoke(t.Context(), "/shop.Other/Any", &bytesValue{}, &bytesValue{})
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "unknown service") {
		t.Errorf("all of a service: %v", err)
	}
	err = cc.Invoke(t.Context(), "/shop.Inventory/List", &bytesValue{}, &bytesValue{})
	if status.Code(err) != codes.PermissionDenied {
		t.Fatal(err)
	}
	contains(t, err.Error(), "orders may not call shop.Inventory/List of inventory", "inventory/shoal.yaml:9", "- {caller: orders, grpc: [shop.Inventory/List]}")
}

// Nobody gains access by a route: who hands over declares the call, and the other service admits both
// who hands over and in whose name.
func TestHandOverGivesNoAccess(t *testing.T) {
	toNext := handOver("all", fleet.Match{}, fleet.Share{Service: "inventory-next", Weight: 1})
	undeclared := func(s *fleet.Service) { s.Manifest.Calls = nil }
	grpcNext := func(s *fleet.Service) { s.Manifest.Ports[0].Protocol = fleet.GRPC }
	tests := map[string]struct {
		provider, other *fleet.Service
		path, want      string
	}{
		"the provider does not declare it": {inventory(routed(toNext), undeclared), next(), "/", "inventory may not call inventory-next"},
		"the other lets only the caller":   {inventory(routed(toNext)), next(allows(fleet.Allow{Caller: "orders"})), "/", "inventory may not call inventory-next"},
		"the other lets only the provider": {inventory(routed(toNext)), next(allows(fleet.Allow{Caller: "inventory"})), "/", "orders may not call inventory-next"},
		"the other narrows the provider":   {inventory(routed(toNext)), next(allows(fleet.Allow{Caller: "orders"}, fleet.Allow{Caller: "inventory", Paths: []string{"/in/*"}})), "/", "inventory may not call GET / of inventory-next"},
		"the other narrows the caller":     {inventory(routed(toNext)), next(allows(fleet.Allow{Caller: "orders", Paths: []string{"/in/*"}}, fleet.Allow{Caller: "inventory"})), "/", "orders may not call GET / of inventory-next"},
		"the provider narrows the caller":  {inventory(routed(toNext), allows(fleet.Allow{Caller: "orders", Paths: []string{"/in/*"}})), next(), "/", "orders may not call GET / of inventory:"},
		"the provider lets others only":    {inventory(routed(toNext), allows(fleet.Allow{Caller: "web"})), next(), "/", "orders may not call inventory:"},
		"another protocol":                 {inventory(routed(toNext)), next(grpcNext), "/", "inventory-next does not listen on port 8080"},
		"a way around a path":              {inventory(routed(toNext)), next(allows(fleet.Allow{Caller: "orders"}, fleet.Allow{Caller: "inventory", Paths: []string{"/in/*"}})), "/in/%2e%2e/x", "inventory may not call GET /in/%2e%2e/x"},
	}
	for name, q := range tests {
		t.Run(name, func(t *testing.T) {
			_, addr := routedWorld(t, q.provider, q.other)
			for proto, client := range map[string]*http.Client{"HTTP/1.1": http.DefaultClient, "HTTP/2": h2c(t)} {
				res, err := client.Get("http://" + addr + q.path)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode < 400 || !strings.Contains(string(body), q.want) {
					t.Errorf("%s: %d %s", proto, res.StatusCode, body)
				}
			}
		})
	}
	admitted := next(allows(fleet.Allow{Caller: "orders", Paths: []string{"/in/*"}}, fleet.Allow{Caller: "inventory", Methods: []string{"GET"}}))
	w, addr := routedWorld(t, inventory(routed(toNext)), admitted)
	if res, body := w.get("http://" + addr + "/in/a"); res.StatusCode != 200 || body != "inventory-next for orders" {
		t.Errorf("%s %s", res.Status, body)
	}
}

// peerAt is the way to the one peer that listens at l.
func peerAt(l net.Listener) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
}

// A node hands over to an instance elsewhere, where the same rules hold: a peer cannot make up a route,
// nor send by one what it does not match.
func TestHandOverBetweenPeers(t *testing.T) {
	away := func(s *fleet.Service) { s.Endpoints[0].Node = "far" }
	services := []*fleet.Service{orders(), inventory(routed(handOver("v2", fleet.Match{Path: "/v2/*"}, fleet.Share{Service: "inventory-next", Weight: 1}))), next(away, allows(fleet.Allow{Caller: "orders"}, fleet.Allow{Caller: "inventory"}))}
	far := newWorld(t, proxy.Config{Node: "far"}, services...)
	l := far.listen()
	far.background(func(ctx context.Context) error { return far.p.ServePeer(ctx, l) })
	far.attach("inventory-next-1", says("inventory-next"))
	near := newWorld(t, proxy.Config{Peer: peerAt(l)}, services...)
	near.attach("inventory-1", says("inventory"))
	addr := near.named("inventory", 80)
	for _, client := range []*http.Client{near.client(), h2c(t)} {
		res, err := client.Get("http://" + addr + "/v2/a")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || string(body) != "inventory-next for orders" {
			t.Errorf("%s %s", res.Status, body)
		}
	}
	peer := func(path, via string) int {
		nc := must(net.Dial("tcp", l.Addr().String()))
		return askPeerFor(t, nc, path, "local orders/orders-1 inventory-next/inventory-next-1:8080 1"+via)
	}
	for _, q := range [][2]string{{"/v2/a", ""}, {"/v2/a", " inventory/made-up"}, {"/v2/a", " orders/v2"}, {"/admin", " inventory/v2"}} {
		if status := peer(q[0], q[1]); status != 403 {
			t.Errorf("%q: %d", q, status)
		}
	}
	if status := peer("/v2/a", " inventory/v2"); status != 200 {
		t.Error(status)
	}
}

func TestSplit(t *testing.T) {
	split := func(a, b uint32) *fleet.Service {
		return inventory(routed(fleet.Route{Name: "split", Sticky: fleet.Sticky{Cookie: "session"},
			Split: []fleet.Share{{Service: "inventory", Weight: a}, {Service: "inventory-next", Weight: b}}}))
	}
	w, addr := routedWorld(t, split(80, 20), next())
	ask := func(client *http.Client, session string) string {
		r := must(http.NewRequest("GET", "http://"+addr, nil))
		if session != "" {
			r.Header["Cookie"] = []string{"other=1; session=" + session, "last=x"}
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return strings.TrimSuffix(string(body), " for orders")
	}
	count := func(client *http.Client, session func(int) string) (next int, of map[int]string) {
		of = map[int]string{}
		for i := range 1000 {
			if of[i] = ask(client, session(i)); of[i] == "inventory-next" {
				next++
			}
		}
		return next, of
	}
	client := w.client()
	if n, _ := count(client, func(int) string { return "" }); n < 130 || n > 280 {
		t.Errorf("%d of 1000 by chance", n)
	}
	own := func(i int) string { return fmt.Sprintf("user-%d", i) }
	n, first := count(client, own)
	if n < 130 || n > 280 {
		t.Errorf("%d of 1000 by session", n)
	}
	if _, again := count(h2c(t), own); fmt.Sprint(again) != fmt.Sprint(first) {
		t.Error("a session does not stay where it is")
	}
	w.install(split(60, 40), next(), orders())
	_, more := count(client, own)
	for i, name := range first {
		if name == "inventory-next" && more[i] != name {
			t.Errorf("session %d moved back although the share grew", i)
		}
	}
	gone := next(func(s *fleet.Service) { s.Deployed, s.Endpoints = false, nil })
	w.install(split(60, 40), gone, orders())
	if n, _ := count(client, own); n != 0 {
		t.Errorf("%d calls to what does not run", n)
	}
	w.install(split(0, 1), next(), orders())
	if n, _ := count(client, own); n != 1000 {
		t.Errorf("%d of all", n)
	}
}

func TestRouteTimeout(t *testing.T) {
	slow := fleet.Route{Name: "slow", Match: fleet.Match{Path: "/slow"}, Timeout: fleet.Duration(50 * time.Millisecond)}
	w := newWorld(t, proxy.Config{}, inventory(routed(slow)), orders())
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	w.attach("inventory-1", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-release:
		}
	}))
	addr := w.named("inventory", 80)
	res, body := w.get("http://" + addr + "/slow")
	if res.StatusCode != 504 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonTimeout) {
		t.Errorf("%s %s", res.Status, body)
	}
	contains(t, body, "within 50ms")
	w.install(inventory(routed(slow)), orders(func(s *fleet.Service) { s.Manifest.Calls[0].Timeout = fleet.Duration(20 * time.Millisecond) }))
	_, body = w.get("http://" + addr + "/slow")
	contains(t, body, "within 20ms") // the caller's own is shorter
}

// Routes change under constant load of every protocol: nothing fails, and what is in flight ends.
func TestRoutesChangeUnderLoad(t *testing.T) {
	toNext := fleet.Share{Service: "inventory-next", Weight: 50}
	both := []fleet.Route{
		handOver("a", fleet.Match{Path: "/a"}, toNext),
		handOver("b", fleet.Match{}, fleet.Share{Service: "inventory", Weight: 50}, toNext),
	}
	pictures := [][]*fleet.Service{
		{inventory(), next(), orders()},
		{inventory(routed(both...)), next(), orders()},
		{inventory(routed(both[1])), next(), orders()},
		{inventory(routed(fleet.Route{Name: "own", Timeout: fleet.Duration(time.Minute)})), next(), orders()},
	}
	w, addr := routedWorld(t, inventory(), next())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var done atomic.Int64
	var wg sync.WaitGroup
	for i := range 4 {
		client := w.client()
		if i%2 == 1 {
			client = h2c(t)
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				res, err := client.Post("http://"+addr+"/a", "text/plain", strings.NewReader("x"))
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 {
					t.Errorf("%s %s %v", res.Status, body, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for i := 0; i < 100 || done.Load() < 1000 && !t.Failed(); i++ {
		w.install(pictures[i%len(pictures)]...)
		seen := done.Load()
		eventually(t, "a call", func() bool { return done.Load() > seen || t.Failed() })
	}
	cancel()
	wg.Wait()
}
