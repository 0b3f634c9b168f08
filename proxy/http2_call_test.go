package proxy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/wire/h2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// h2c returns a client with prior knowledge of HTTP/2.
func h2c(t testing.TB) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// startCatalog runs a plain HTTP application, with HTTP/2 or without.
func startCatalog(t testing.TB, http2 bool, h http.HandlerFunc) string {
	l := listenHTTP2(t)
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(http2)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func catalogShop(t testing.TB, timeout time.Duration, addr string) *shop {
	s := newShop(t, "n1", nil)
	s.install(timeout, fleet.Endpoint{Instance: "catalog-1", Node: "n1"})
	s.p.Attach("catalog-1", to(addr))
	return s
}

// mirror answers with what it was asked, and how.
func mirror(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Proto", r.Proto)
	w.Header().Set("X-Caller", r.Header.Get("Shoal-Caller"))
	w.Header().Set("X-Cookie", r.Header.Get("Cookie"))
	w.Header().Set("Shoal-Reason", "forged")
	w.Header().Set("Trailer", "X-Sum")
	switch r.URL.Path {
	case "/empty":
		w.WriteHeader(http.StatusNoContent)
		return
	case "/known":
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
		return
	case "/deaf":
		w.WriteHeader(http.StatusTeapot)
		return
	}
	_ = http.NewResponseController(w).EnableFullDuplex()
	sum := sha256.New()
	_, _ = io.Copy(io.MultiWriter(w, sum), r.Body)
	w.Header().Set("X-Sum", fmt.Sprintf("%x", sum.Sum(nil)))
}

func TestHTTP2Calls(t *testing.T) {
	for _, http2 := range []bool{true, false} {
		proto := map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[http2]
		t.Run("application "+proto, func(t *testing.T) {
			s := catalogShop(t, 0, startCatalog(t, http2, mirror))
			url := "http://" + s.outbound("web", "catalog")
			client := h2c(t)
			var wg sync.WaitGroup
			for i := range 12 {
				wg.Go(func() { mirrored(t, client, url, proto, i) })
			}
			wg.Wait()
			bodiless(t, client, url)
		})
	}
}

func mirrored(t *testing.T, client *http.Client, url, proto string, i int) {
	body := bytes.Repeat([]byte{byte('a' + i)}, i*i*i*500)
	var in io.Reader = bytes.NewReader(body) // of known length
	if i%2 == 0 {
		in = io.MultiReader(in)
	}
	req, _ := http.NewRequest("POST", url+map[bool]string{true: "/known", false: "/"}[i%3 == 0], in)
	req.Header.Set("Shoal-Caller", "forged")
	req.Header["Cookie"] = []string{"a=1", "b=2"}
	res, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d: %d of %d bytes, %v", i, len(got), len(body), err)
	}
	h := res.Header
	if res.ProtoMajor != 2 || h.Get("X-Proto") != proto || h.Get("X-Caller") != "web" || h.Get("Shoal-Reason") != "" || h.Get("X-Cookie") != "a=1; b=2" {
		t.Errorf("%s %v", res.Proto, h)
	}
}

func bodiless(t *testing.T, client *http.Client, url string) {
	for _, q := range [][2]string{{"HEAD", "/known"}, {"GET", "/empty"}, {"GET", "/"}, {"DELETE", "/known"}} {
		req, _ := http.NewRequest(q[0], url+q[1], nil)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(q, err)
		}
		if body, err := io.ReadAll(res.Body); len(body) != 0 || err != nil {
			t.Fatal(q, body, err)
		}
		res.Body.Close()
	}
	// An answer that comes before the request's end is passed on whole.
	res, err := client.Post(url+"/deaf", "text/plain", io.MultiReader(bytes.NewReader(make([]byte, 5<<20))))
	if err != nil || res.StatusCode != http.StatusTeapot {
		t.Fatal(res, err)
	}
	res.Body.Close()
}

func TestHTTP2Trailers(t *testing.T) {
	s := catalogShop(t, 0, startCatalog(t, true, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
		w.Header().Set(http.TrailerPrefix+"X-End", r.Trailer.Get("X-Last"))
	}))
	req, _ := http.NewRequest("POST", "http://"+s.outbound("web", "catalog"), io.MultiReader(strings.NewReader("abc")))
	req.Trailer = http.Header{"X-Last": {"z"}}
	res, err := h2c(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err != nil || res.Trailer.Get("X-End") != "z" {
		t.Fatal(res.Trailer, err)
	}
}

func TestHTTP2Refusals(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, http2 := range map[string]bool{"HTTP/2": true, "HTTP/1.1": false} {
		t.Run(name, func(t *testing.T) {
			s := catalogShop(t, 100*time.Millisecond, startCatalog(t, http2, hang))
			for _, want := range []struct {
				from, reason, text string
				status             int
			}{
				{"stranger", "undeclared-call", "stranger/shoal.yaml:7", 403},
				{"web", "timeout", "did not answer within 100ms", 504},
			} {
				res, err := h2c(t).Get("http://" + s.outbound(want.from, "catalog"))
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != want.status || res.Header.Get("Shoal-Reason") != want.reason || !strings.Contains(string(body), want.text) {
					t.Fatal(res.Status, res.Header, string(body))
				}
				waitUntil(t, "the refusal is recorded", func() bool {
					found := s.recorder.Find(res.Header.Get("X-Request-Id"))
					return len(found) == 1 && found[0].Reason == want.reason && found[0].Status == want.status
				})
			}
		})
	}
}

// refuser is an application that refuses some streams, as a server that is full or goes away does.
func refuser(t *testing.T, refuse func(n int64) (h2.Code, bool)) string {
	l := listenHTTP2(t)
	var seen atomic.Int64
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			c := h2.NewServer(nc, h2.Config{}, func(s *h2.Stream, _ *h2.Batch) {
				if code, no := refuse(seen.Add(1)); no {
					s.Reset(nil, code)
					s.Release(nil)
					return
				}
				go func() {
					body, _ := io.ReadAll(s)
					_ = s.SendHead(nil, &h2.Head{Status: 200}, false)
					_, _ = s.Write(body)
					_ = s.CloseWrite(nil)
					s.Release(nil)
				}()
			})
			go func() { _ = c.Run(t.Context(), nil) }()
		}
	}()
	return l.Addr().String()
}

// What the application vouches for not having processed is sent again, with its body; what it may
// have processed is not, unless that is safe.
func TestHTTP2Retries(t *testing.T) {
	post := func(s *shop, body string, key string) (int, string) {
		req, _ := http.NewRequest("POST", "http://"+s.outbound("web", "catalog"), io.MultiReader(strings.NewReader(body)))
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		res, err := h2c(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(got)
	}
	first := func(code h2.Code) func(int64) (h2.Code, bool) {
		return func(n int64) (h2.Code, bool) { return code, n == 1 }
	}
	body := strings.Repeat("x", 30_000)
	if status, got := post(catalogShop(t, 0, refuser(t, first(h2.RefusedStream))), body, ""); status != 200 || got != body {
		t.Fatal("refused: ", status, len(got))
	}
	if status, _ := post(catalogShop(t, 0, refuser(t, first(h2.InternalError))), body, ""); status != 502 {
		t.Fatal("failed, not safe: ", status)
	}
	if status, got := post(catalogShop(t, 0, refuser(t, first(h2.InternalError))), body, "k"); status != 200 || got != body {
		t.Fatal("failed, safe: ", status, len(got))
	}
}

// A slow reader of an answer slows the application, through the translation too.
func TestHTTP2SlowReader(t *testing.T) {
	for _, http2 := range []bool{true, false} {
		var sent atomic.Int64
		s := catalogShop(t, 0, startCatalog(t, http2, func(w http.ResponseWriter, r *http.Request) {
			piece := make([]byte, 10_000)
			for range 10_000 {
				n, err := w.Write(piece)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		}))
		l := s.outbound("web", "catalog")
		nc, err := net.Dial("tcp", l)
		if err != nil {
			t.Fatal(err)
		}
		c := h2.NewClient(nc, h2.Config{})
		go func() { _ = c.Run(context.Background(), nil) }()
		st, err := c.Open(nil, &h2.Head{Method: "GET", Scheme: "http", Path: "/", Authority: "catalog"}, true, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.ReadHead(t.Context()); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "the application is slowed", func() bool {
			before := sent.Load()
			time.Sleep(50 * time.Millisecond)
			return before > 0 && before == sent.Load()
		})
		if n := sent.Load(); n > 50<<20 { // sockets' buffers grow large on loopback
			t.Fatal("taken from the application:", n)
		}
		if n, err := io.Copy(io.Discard, st); n != 100_000_000 || err != nil {
			t.Fatal(n, err)
		}
		c.Close()
		<-c.Done()
	}
}

// A caller that leaves ends the application's work.
func TestHTTP2CallerLeaves(t *testing.T) {
	for _, http2 := range []bool{true, false} {
		entered, left := make(chan struct{}, 1), make(chan struct{}, 1)
		s := catalogShop(t, 0, startCatalog(t, http2, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "PRI" { // the proxy asks whether it speaks HTTP/2
				http.Error(w, "what?", http.StatusBadRequest)
				return
			}
			entered <- struct{}{}
			<-r.Context().Done()
			left <- struct{}{}
		}))
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+s.outbound("web", "catalog"), nil)
		go func() {
			<-entered
			cancel()
		}()
		if _, err := h2c(t).Do(req); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		<-left
	}
}

// Two processes: the caller's proxy reaches the instance by the other's, over a Unix socket.
// shopsApart are two nodes: web is on the near one, and inventory on the far one.
func shopsApart(t *testing.T) (near, far *shop, stock *grpcStock) {
	path := filepath.Join(t.TempDir(), "peer.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Skip("no Unix sockets here:", err)
	}
	far, stock = newShop(t, "n2", nil), startInventory(t, "inventory-1")
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { defer close(served); _ = far.p.ServePeer(ctx, l) }()
	t.Cleanup(func() { cancel(); <-served })
	near = newShop(t, "n1", func(c *proxy.Config) {
		c.Peer = func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	})
	for _, s := range []*shop{near, far} {
		s.install(0, fleet.Endpoint{Instance: "inventory-1", Node: "n2"}, fleet.Endpoint{Instance: "web-1", Node: "n1"},
			fleet.Endpoint{Instance: "catalog-1", Node: "n2"})
	}
	far.p.Attach("inventory-1", to(stock.addr))
	return near, far, stock
}

func TestHTTP2ThroughPeer(t *testing.T) {
	near, far, stock := shopsApart(t)
	far.p.Attach("catalog-1", to(startCatalog(t, false, mirror)))
	cc := near.client("web", "inventory")
	for n := range 100 {
		want := strings.Repeat("x", n*100)
		if got, err := get(t.Context(), cc, want); got != want || err != nil {
			t.Fatal(len(got), err)
		}
	}
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := get(short, cc, "hang"); status.Code(err) != codes.DeadlineExceeded {
		t.Fatal(err)
	}
	<-stock.ended
	res, err := h2c(t).Post("http://"+near.outbound("web", "catalog")+"/known", "text/plain", strings.NewReader("over two hops"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); string(body) != "over two hops" || err != nil || res.Header.Get("X-Caller") != "web" {
		t.Fatal(string(body), err, res.Header)
	}
}

// The gateway takes HTTP/2, too.
func TestHTTP2AtTheEdge(t *testing.T) {
	s := newShop(t, "n1", nil)
	exposed := &fleet.Service{Name: "catalog", Index: 16, Deployed: true, Endpoints: []fleet.Endpoint{{Instance: "catalog-1", Node: "n1"}},
		Manifest: fleet.Manifest{Service: "catalog", Ports: []fleet.Port{{Number: 8080, Protocol: fleet.HTTP}}, Expose: []fleet.Expose{{Host: "catalog.localhost", Path: "/"}}}}
	s.p.Install(&fleet.Snapshot{Version: 1, Services: []*fleet.Service{exposed}})
	s.p.Attach("catalog-1", to(startCatalog(t, true, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Host"), r.Header.Get("Shoal-Caller"))
	})))
	l := listenHTTP2(t)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = s.p.ServeEdge(ctx, l, func(host, _ string) (string, bool) { return "catalog", strings.HasPrefix(host, "catalog.") })
	}()
	t.Cleanup(func() { cancel(); <-ran })
	for host, want := range map[string]string{"catalog.localhost": "127.0.0.1catalog.localhostgateway", "other.localhost": "no service answers"} {
		req, _ := http.NewRequest("GET", "http://"+l.Addr().String(), nil)
		req.Host = host
		req.Header.Set("X-Forwarded-For", "forged")
		res, err := h2c(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if !strings.HasPrefix(string(body), want) {
			t.Fatal(host, res.Status, string(body))
		}
	}
}

// Listeners that end let streams end: the first GOAWAY loses no request.
func TestHTTP2ListenerEnds(t *testing.T) {
	s, _ := localShop(t, 0)
	l := listenHTTP2(t)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = s.p.ServeNamed(ctx, l, proxy.Source{Service: "web"}, "inventory", 8080)
	}()
	cc := s.clientAt(l.Addr().String())
	slow := make(chan error, 1)
	if _, err := get(t.Context(), cc, "a"); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := get(t.Context(), cc, "slow")
		slow <- err
	}()
	time.AfterFunc(5*time.Millisecond, cancel)
	<-ran
	if err := <-slow; err != nil && status.Code(err) != codes.Unavailable { // it may have come too late
		t.Fatal(err)
	}
}

// grpc-go measures the way with a PING for each round trip that brings data, at both ends: a busy caller is
// no flood.
func TestGRPCPingsOfABusyCallerAreNoFlood(t *testing.T) {
	s, i := newShop(t, "n1", func(c *proxy.Config) { c.MaxControl = 20 }), startInventory(t, "inventory-1")
	s.install(0, fleet.Endpoint{Instance: "inventory-1", Node: "n1"})
	s.p.Attach("inventory-1", to(i.addr))
	cc := s.client("web", "inventory")
	for n := range 500 {
		if _, err := get(t.Context(), cc, "a"); err != nil {
			t.Fatalf("call %d: %v", n, err)
		}
	}
}
