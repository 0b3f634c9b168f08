package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
)

// world is a proxy between real clients and real servers. `orders` calls `inventory`.
type world struct {
	t        *testing.T
	p        *proxy.Proxy
	recorder *observe.Recorder
	snapshot *fleet.Snapshot
}

func newWorld(t *testing.T, c proxy.Config, services ...*fleet.Service) *world {
	t.Helper()
	w := &world{t: t, recorder: observe.New(observe.Config{Ring: 1024})}
	c.Recorder = w.recorder
	if c.Node == "" {
		c.Node = "local"
	}
	if c.Node == "none" {
		c.Node = ""
	}
	if c.Grace == 0 {
		c.Grace = 2 * time.Second
	}
	p, err := proxy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	w.p = p
	w.background(p.Run)
	w.install(services...)
	return w
}

// background runs f until the test ends.
func (w *world) background(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				w.t.Errorf("background: %v", err)
			}
		case <-time.After(20 * time.Second):
			w.t.Error("background: did not end")
		}
	})
}

func (w *world) install(services ...*fleet.Service) {
	w.snapshot = &fleet.Snapshot{Fleet: "test", Version: 1, Services: services}
	w.p.Install(w.snapshot)
}

// orders is a caller; edit changes its manifest.
func orders(edit ...func(*fleet.Service)) *fleet.Service {
	s := service("orders", 17)
	s.Manifest.Lines = map[string]int{"calls": 12, "egress": 20, "needs": 30}
	s.Manifest.Calls = []fleet.Call{{Service: "inventory", As: "stock"}}
	for _, e := range edit {
		e(s)
	}
	return s
}

// inventory listens on port 8080.
func inventory(edit ...func(*fleet.Service)) *fleet.Service {
	s := service("inventory", 16)
	for _, e := range edit {
		e(s)
	}
	return s
}

func service(name string, index uint16) *fleet.Service {
	return &fleet.Service{
		Name: name, Index: index, Deployed: true,
		Endpoints: []fleet.Endpoint{{Instance: name + "-1", Node: "local"}},
		Manifest: fleet.Manifest{
			File: name + "/shoal.yaml", Service: name,
			Ports: []fleet.Port{{Number: 8080, Protocol: fleet.HTTP}},
		},
	}
}

func instances(names ...string) func(*fleet.Service) {
	return func(s *fleet.Service) {
		s.Endpoints = nil
		for _, n := range names {
			s.Endpoints = append(s.Endpoints, fleet.Endpoint{Instance: n, Node: "local"})
		}
	}
}

func protocol(p fleet.Protocol) func(*fleet.Service) {
	return func(s *fleet.Service) { s.Manifest.Ports[0].Protocol = p }
}

// dialTo is the way to a local instance, whatever port is asked for.
type dialTo string

func (d dialTo) Dial(ctx context.Context, _ uint16) (*net.TCPConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", string(d))
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// attach makes h an instance's application.
func (w *world) attach(instance string, h http.Handler) *httptest.Server {
	s := httptest.NewServer(h)
	w.t.Cleanup(s.Close)
	w.p.Attach(instance, dialTo(s.Listener.Addr().String()))
	return s
}

// named returns the address of a listener by which orders reaches a host and port.
func (w *world) named(host string, port uint16) string {
	l := w.listen()
	w.background(func(ctx context.Context) error {
		return w.p.ServeNamed(ctx, l, proxy.Source{Service: "orders", Instance: "orders-1"}, host, port)
	})
	return l.Addr().String()
}

func (w *world) listen() net.Listener {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// client returns an HTTP client with connections of its own.
func (w *world) client() *http.Client {
	tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (w *world) get(url string) (*http.Response, string) {
	w.t.Helper()
	return w.do(must(http.NewRequest("GET", url, nil)))
}

func (w *world) do(r *http.Request) (*http.Response, string) {
	w.t.Helper()
	res, err := w.client().Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res, string(body)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// raw opens a connection on which a test speaks for itself.
func (w *world) raw(addr string) (net.Conn, *bufio.Reader) {
	w.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

// exchangeRaw sends text and reads one response.
func (w *world) exchangeRaw(addr, text string) (*http.Response, string) {
	w.t.Helper()
	c, r := w.raw(addr)
	if _, err := io.WriteString(c, text); err != nil {
		w.t.Fatal(err)
	}
	return w.readResponse(r, "GET")
}

func (w *world) readResponse(r *bufio.Reader, method string) (*http.Response, string) {
	w.t.Helper()
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		w.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res, string(body)
}

// eventually polls until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// observed waits for the record of a request.
func (w *world) observed(id string) fleet.Observation {
	w.t.Helper()
	var found []fleet.Observation
	eventually(w.t, "a record of "+id, func() bool {
		found = w.recorder.Find(id)
		return len(found) > 0
	})
	return found[0]
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q lacks %q", text, p)
		}
	}
}
