package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
)

func TestEdge(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(func(s *fleet.Service) {
		s.Manifest.Expose = []fleet.Expose{{Host: "inventory.localhost", Path: "/"}}
	}), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "%s by %s for %v %v", r.Host, r.Header.Get("Shoal-Caller"), r.Header["X-Forwarded-For"], r.Header["X-Forwarded-Host"])
	}))
	l := w.listen()
	match := func(host, path string) (string, bool) {
		service, ok := strings.CutSuffix(host, ".localhost")
		return strings.Clone(service), ok && path != "/private"
	}
	w.background(func(ctx context.Context) error { return w.p.ServeEdge(ctx, l, match) })
	c, r := w.raw(l.Addr().String())
	for _, x := range []struct {
		host, path string
		status     int
		says       string
	}{
		{"inventory.localhost", "/", 200, "inventory.localhost by gateway for [127.0.0.1] [inventory.localhost]"},
		{"inventory.localhost", "/private", 404, "no service answers"},
		{"orders.localhost", "/", 404, "orders is not exposed"},
		{"other", "/", 404, "no service answers for the host \"other\""},
		{"inventory.localhost", "/", 200, "by gateway"},
	} {
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", x.path, x.host)
		res, body := w.readResponse(r, "GET")
		if res.StatusCode != x.status {
			t.Errorf("%s%s: %s", x.host, x.path, res.Status)
		}
		contains(t, body, x.says)
	}
}

func TestForwardProxy(t *testing.T) {
	outside := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "outside %s %q", r.URL.Path, r.Header["Shoal-Caller"])
	}))
	defer outside.Close()
	u := must(url.Parse(outside.URL))
	w := newWorld(t, proxy.Config{}, inventory(), orders(func(s *fleet.Service) {
		s.Manifest.Egress = []fleet.HostPort{{Host: "127.0.0.1"}}
	}))
	w.attach("inventory-1", http.HandlerFunc(hello))
	l := w.listen()
	w.background(func(ctx context.Context) error {
		return w.p.ServeForward(ctx, l, proxy.Source{Service: "orders"})
	})
	through := &url.URL{Scheme: "http", Host: l.Addr().String()}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(through)}}
	for _, c := range []struct {
		url    string
		status int
		says   string
	}{
		{"http://inventory/x", 200, "hello"},
		{"http://stock:8080/x", 200, "hello"},
		{outside.URL + "/y", 200, "outside /y []"},
		{"http://example.com/", 403, "- example.com:80"},
	} {
		res, err := client.Get(c.url)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != c.status {
			t.Errorf("%s: %s", c.url, res.Status)
		}
		contains(t, string(body), c.says)
	}
	conn, r := w.raw(l.Addr().String())
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", u.Host, u.Host)
	res, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"})
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	fmt.Fprintf(conn, "GET /tunnelled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if _, body := w.readResponse(r, "GET"); body != "outside /tunnelled []" {
		t.Errorf("%q", body)
	}
	if res, _ := w.exchangeRaw(l.Addr().String(), "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n"); res.StatusCode != 403 {
		t.Errorf("undeclared CONNECT: %s", res.Status)
	}
}

// A captured connection goes where the application dialed, whatever its Host field says.
func TestCapture(t *testing.T) {
	ranges := fleet.DefaultRanges()
	v4, v6 := ranges.Virtual(16, false)
	name, _ := ranges.Virtual(500, true)
	w := newWorld(t, proxy.Config{NameOf: func(a netip.Addr) (string, bool) { return "api.example.com", a == name }},
		inventory(), orders(func(s *fleet.Service) { s.Manifest.Egress = []fleet.HostPort{{Host: "127.0.0.1", Port: 0}} }))
	w.attach("inventory-1", http.HandlerFunc(hello))
	outside := httptest.NewServer(http.HandlerFunc(hello))
	defer outside.Close()
	for _, c := range []struct {
		dialed netip.AddrPort
		status int
		says   string
	}{
		{netip.AddrPortFrom(v4, 80), 200, "hello"},
		{netip.AddrPortFrom(v6, 8080), 200, "hello"},
		{netip.AddrPortFrom(v4, 81), 404, "port 81"},
		{netip.AddrPortFrom(name, 8443), 403, "- api.example.com:8443"},
		{netip.MustParseAddrPort("192.0.2.1:80"), 403, "- 192.0.2.1:80"},
		{netip.MustParseAddrPort(outside.Listener.Addr().String()), 200, "hello"},
	} {
		l := w.listen()
		original := func(net.Conn) (netip.AddrPort, error) { return c.dialed, nil }
		w.background(func(ctx context.Context) error {
			return proxy.ServeCaptured(ctx, w.p, l, proxy.Source{Service: "orders"}, original)
		})
		res, body := w.exchangeRaw(l.Addr().String(), "GET / HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n")
		if res.StatusCode != c.status {
			t.Errorf("%s: %s", c.dialed, res.Status)
		}
		contains(t, body, c.says)
	}
}

// Without a redirection the address of arrival counts.
func TestCaptureWithoutRedirection(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	l := w.listen().(*net.TCPListener)
	w.background(func(ctx context.Context) error {
		return w.p.ServeCapture(ctx, l, proxy.Source{Service: "orders"})
	})
	_, body := w.exchangeRaw(l.Addr().String(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	contains(t, body, "- "+l.Addr().String())
}

func TestLookup(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	for host, want := range map[string]uint16{"inventory": 16, "Inventory.": 16, "stock": 16, "orders": 17, "events": 1, "pubsub": 2, "other": 0} {
		if got, ok := w.p.Lookup("orders", host); got != want || ok != (want != 0) {
			t.Errorf("%s: %d %v, want %d", host, got, ok, want)
		}
	}
	if _, ok := w.p.Lookup("inventory", "stock"); ok {
		t.Error("an alias holds for its caller only")
	}
}

// When a listener's context ends, idle connections end and exchanges go on.
func TestServeEnds(t *testing.T) {
	w := newWorld(t, proxy.Config{Park: 20 * time.Millisecond}, inventory(), orders())
	began, finish := make(chan bool), make(chan bool)
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- true
			<-finish
		}
		io.WriteString(rw, "hello")
	}))
	l := w.listen()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.p.ServeNamed(ctx, l, proxy.Source{Service: "orders"}, "inventory", 80) }()
	const get = "GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
	idle, idleR := w.raw(l.Addr().String())
	fmt.Fprintf(idle, get, "/")
	w.readResponse(idleR, "GET")
	late, lateR := w.raw(l.Addr().String())
	fmt.Fprintf(late, get, "/")
	w.readResponse(lateR, "GET")
	busy, busyR := w.raw(l.Addr().String())
	fmt.Fprintf(busy, get, "/slow")
	<-began
	eventually(t, "the idle ones are parked", func() bool { return proxy.Parked(w.p) == 2 })
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	fmt.Fprintf(late, get, "/") // it was under way
	if res, body := w.readResponse(lateR, "GET"); body != "hello" || !res.Close {
		t.Errorf("a last request: %q, close %v", body, res.Close)
	}
	if _, err := idleR.ReadByte(); err != io.EOF {
		t.Errorf("the idle connection: %v", err)
	}
	close(finish)
	if res, body := w.readResponse(busyR, "GET"); body != "hello" || !res.Close {
		t.Errorf("%q, close %v", body, res.Close)
	}
}

func TestLimit(t *testing.T) {
	w := newWorld(t, proxy.Config{MaxInFlight: 2}, inventory(), orders())
	began, finish := make(chan bool), make(chan bool)
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		began <- true
		<-finish
	}))
	addr := w.named("inventory", 80)
	for range 2 {
		go w.client().Get("http://" + addr)
		<-began
	}
	if res, _ := w.get("http://" + addr); res.StatusCode != 503 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonOverloaded) {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	close(finish)
}

// heldListener accepts connections whose first read says so, and waits.
type heldListener struct {
	net.Listener
	reads, goOn chan struct{}
}

func (l *heldListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &heldConn{Conn: c, l: l}, nil
}

type heldConn struct {
	net.Conn
	l    *heldListener
	once sync.Once
}

func (c *heldConn) Read(p []byte) (int, error) {
	c.once.Do(func() {
		c.l.reads <- struct{}{}
		<-c.l.goOn
	})
	return c.Conn.Read(p)
}

func (c *heldConn) SetReadDeadline(time.Time) error { return nil } // however long it is held

// A connection that becomes a session only when its listener has ended, and was forgotten, ends with the proxy
// all the same.
func TestLateSessionEndsWithTheProxy(t *testing.T) {
	p := must(proxy.New(proxy.Config{Node: "local", Recorder: observe.New(observe.Config{}), Grace: 50 * time.Millisecond}))
	running, stop := context.WithCancel(t.Context())
	defer stop()
	over := make(chan error, 1)
	go func() { over <- p.Run(running) }()
	w := &world{t: t, p: p}
	asked, left := make(chan struct{}), make(chan struct{})
	w.attach("inventory-1", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
		close(left)
	}))
	shut := orders(func(s *fleet.Service) { s.Manifest.Calls = nil })
	w.install(inventory(), shut)

	l := &heldListener{w.listen(), make(chan struct{}), make(chan struct{})}
	serving, end := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- p.ServeNamed(serving, l, proxy.Source{Service: "orders"}, "inventory", 8080) }()
	c, r := w.raw(l.Addr().String())
	<-l.reads // it is looked at, to be refused in its own words
	end()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	w.install(inventory(), orders())
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	close(l.goOn)
	<-asked
	stop()
	if err := <-over; err != nil {
		t.Error(err)
	}
	if _, err := r.ReadByte(); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the caller's connection goes on")
	}
	<-left
}
