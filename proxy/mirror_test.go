package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

func mirrors(edit ...func(*fleet.Mirror)) func(*fleet.Service) {
	m := &fleet.Mirror{Service: "inventory-next", Percent: 100, Compare: true, Headers: []string{"content-type", "x-kind"}}
	for _, e := range edit {
		e(m)
	}
	return routed(fleet.Route{Name: "copied", Mirror: m})
}

// copyOf waits for the record of the copy of a request.
func (w *world) copyOf(id string) (o fleet.Observation) {
	w.t.Helper()
	eventually(w.t, "a record of the copy of "+id, func() bool {
		for _, o = range w.recorder.Find(id) {
			if o.Kind == fleet.KindMirror {
				return true
			}
		}
		return false
	})
	return o
}

// told is what an application was asked.
type told struct {
	mu  sync.Mutex
	all []string
}

func (s *told) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, fmt.Sprintf("%s %s %s by %s host %s agent %q x %q", r.Method, r.RequestURI, body, r.Header.Get("Shoal-Caller"), r.Host, r.UserAgent(), r.Header["X-Own"]))
}

func (s *told) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return ""
	}
	return s.all[len(s.all)-1]
}

// The copy is the same request, in the caller's name, whichever protocols carry it.
func TestMirrorCopies(t *testing.T) {
	for _, appHTTP2 := range []bool{true, false} {
		w := newWorld(t, proxy.Config{}, inventory(mirrors(func(m *fleet.Mirror) { m.Methods = []string{"GET", "POST"} })), next(), orders())
		original, copied := &told{}, &told{}
		w.p.Attach("inventory-1", to(startCatalog(t, appHTTP2, original.ServeHTTP)))
		w.p.Attach("inventory-next-1", to(startCatalog(t, appHTTP2, copied.ServeHTTP)))
		addr := w.named("inventory", 80)
		for name, client := range map[string]*http.Client{"h1": w.client(), "h2": h2c(t)} {
			for i, q := range []struct {
				method string
				body   io.Reader
			}{{"GET", nil}, {"POST", strings.NewReader("known")}, {"POST", io.MultiReader(strings.NewReader("of no length"))}} {
				r := must(http.NewRequest(q.method, "http://"+addr+"/a%20b?c=d", q.body))
				id := fmt.Sprintf("%s-%v-%d", name, appHTTP2, i)
				r.Header.Set("X-Request-Id", id)
				r.Header["X-Own"] = []string{"1", "2"}
				r.Header.Set("Shoal-Caller", "forged")
				r.Host = "stock.example"
				res, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if o := w.copyOf(id); o.Callee != "inventory-next" || o.Caller != "orders" || o.Route != "inventory/copied" || o.Compared == nil || o.Compared.Differs() || o.Compared.With != "inventory" {
					t.Errorf("%s: %+v", id, o)
				}
				if original.last() != copied.last() || !strings.Contains(copied.last(), "by orders host stock.example") {
					t.Errorf("%s:\n%s\n%s", id, original.last(), copied.last())
				}
				if o := w.observed(id); o.Kind != fleet.KindCall || o.Route != "copied" {
					t.Errorf("%+v", o)
				}
			}
		}
	}
}

func TestMirrorCompares(t *testing.T) {
	answers := map[string]func(w http.ResponseWriter){
		"/same":    func(w http.ResponseWriter) { fmt.Fprint(w, "the same") },
		"/status":  func(w http.ResponseWriter) { w.WriteHeader(500); fmt.Fprint(w, "the same") },
		"/header":  func(w http.ResponseWriter) { w.Header().Set("X-Kind", "new"); fmt.Fprint(w, "the same") },
		"/length":  func(w http.ResponseWriter) { fmt.Fprint(w, "longer than that") },
		"/content": func(w http.ResponseWriter) { fmt.Fprint(w, "the sane") },
		"/framing": func(w http.ResponseWriter) {
			for _, c := range "the same" {
				fmt.Fprint(w, string(c))
				w.(http.Flusher).Flush()
			}
		},
	}
	expects := map[string]string{
		"/same": "", "/framing": "",
		"/status":  "status 500 instead of 200",
		"/header":  "x-kind new instead of none",
		"/length":  "a body of 16 bytes instead of 8",
		"/content": "another body of 8 bytes",
	}
	w := newWorld(t, proxy.Config{}, inventory(mirrors()), next(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "the same") }))
	w.attach("inventory-next-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if answer := answers[r.URL.Path]; answer != nil { // HTTP/2 is tried by PRI *
			answer(rw)
		}
	}))
	addr := w.named("inventory", 80)
	for name, client := range map[string]*http.Client{"h1": w.client(), "h2": h2c(t)} {
		for path, want := range expects {
			r := must(http.NewRequest("GET", "http://"+addr+path, nil))
			id := name + path[1:]
			r.Header.Set("X-Request-Id", id)
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != 200 || string(body) != "the same" {
				t.Errorf("the caller got %s %q", res.Status, body)
			}
			if o := w.copyOf(id); strings.Join(o.Compared.Differences, ", ") != want {
				t.Errorf("%s: %q; want %q", id, o.Compared.Differences, want)
			}
		}
	}
	w.counts("same", 4)
	w.counts("different", 8)
}

// counts waits until so many copies have come to that result.
func (w *world) counts(result string, n int) {
	w.t.Helper()
	line := fmt.Sprintf(`shoal_mirrored_total{callee="inventory",process="node",result=%q,route="copied",to="inventory-next"} %d`, result, n)
	eventually(w.t, line, func() bool { return strings.Contains(w.metrics(), line+"\n") })
}

func (w *world) metrics() string {
	rw := &recording{header: http.Header{}}
	w.recorder.Handler("node").ServeHTTP(rw, must(http.NewRequest("GET", "/metrics", nil)))
	return rw.String()
}

type recording struct {
	strings.Builder
	header http.Header
}

func (r *recording) Header() http.Header { return r.header }
func (r *recording) WriteHeader(int)     {}

// What is not safe is copied only where the manifest says so; what is too large, or a part, is not.
func TestMirrorCopiesOnlyWhatItMay(t *testing.T) {
	some := func(m *fleet.Mirror) { m.Percent = 20 }
	tests := map[string]struct {
		edit     func(*fleet.Mirror)
		method   string
		body     string
		min, max int // of 100
	}{
		"safe":         {func(*fleet.Mirror) {}, "HEAD", "", 100, 100},
		"unsafe":       {func(*fleet.Mirror) {}, "POST", "x", 0, 0},
		"idempotent":   {func(*fleet.Mirror) {}, "PUT", "x", 0, 0},
		"a part":       {some, "GET", "", 5, 45},
		"named":        {func(m *fleet.Mirror) { m.Methods = []string{"POST"} }, "POST", "x", 100, 100},
		"not named":    {func(m *fleet.Mirror) { m.Methods = []string{"POST"} }, "GET", "", 0, 0},
		"too large":    {func(m *fleet.Mirror) { m.Methods = []string{"POST"} }, "POST", strings.Repeat("x", 100<<10), 0, 0},
		"not compared": {func(m *fleet.Mirror) { m.Compare = false }, "GET", "", 100, 100},
	}
	for name, q := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, proxy.Config{}, inventory(mirrors(q.edit)), next(), orders())
			var copies atomic.Int64
			read := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
			w.attach("inventory-1", read)
			w.attach("inventory-next-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.Method == q.method { // and not PRI, by which HTTP/2 is tried
					copies.Add(1)
				}
				read(rw, r)
			}))
			addr := w.named("inventory", 80)
			clients := []*http.Client{w.client(), h2c(t)}
			for i := range 100 {
				before := copies.Load()
				res, err := clients[i%2].Do(must(http.NewRequest(q.method, "http://"+addr, strings.NewReader(q.body))))
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if q.min == 100 {
					eventually(t, "the copy", func() bool { return copies.Load() > before })
				}
			}
			if n := copies.Load(); int(n) < q.min || int(n) > q.max {
				t.Errorf("%d copies of 100", n)
			}
		})
	}
}

// Whatever happens to copies, callers see nothing of it; and copies are bounded.
func TestMirrorDoesNotHarm(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(mirrors()), next(), orders())
	w.attach("inventory-1", says("inventory"))
	release := make(chan struct{})
	var inside atomic.Int64
	w.attach("inventory-next-1", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1); <-release }))
	client, addr := w.client(), w.named("inventory", 80)
	for range 200 {
		res, err := client.Get("http://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || string(body) != "inventory for orders" {
			t.Fatalf("%s %s", res.Status, body)
		}
	}
	eventually(t, "the copies are there", func() bool { return inside.Load() == 64 })
	w.counts("dropped", 136)
	close(release)
	// A service that lets neither in, does not run, or is not there, gets no copy, and the call goes on.
	gone := next(func(s *fleet.Service) { s.Deployed, s.Endpoints = false, nil })
	for name, services := range map[string][]*fleet.Service{
		"shut":   {inventory(mirrors()), next(allows(fleet.Allow{Caller: "inventory"})), orders()},
		"absent": {inventory(mirrors()), orders()},
		"down":   {inventory(mirrors()), gone, orders()},
	} {
		w.install(services...)
		r := must(http.NewRequest("GET", "http://"+addr, nil))
		r.Header.Set("X-Request-Id", name)
		if res, body := w.do(r); res.StatusCode != 200 || body != "inventory for orders" {
			t.Errorf("%s: %s %s", name, res.Status, body)
		}
		if o := w.copyOf(name); o.Reason == "" || o.Detail == "" {
			t.Errorf("%s: %+v", name, o)
		}
	}
	w.counts("unanswered", 3)
}

func TestMirrorOfGRPC(t *testing.T) {
	post := func(m *fleet.Mirror) { m.Methods = []string{"POST"} }
	w := newWorld(t, proxy.Config{}, inventory(protocol(fleet.GRPC), mirrors(post)), next(protocol(fleet.GRPC)), orders())
	w.p.Attach("inventory-1", to(startInventory(t, "inventory-1").addr))
	w.p.Attach("inventory-next-1", to(startInventory(t, "inventory-next-1").addr))
	cc := w.dialGRPC(w.named("inventory", 8080))
	for _, in := range []string{"a", "missing"} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "grpc-"+in)
		_, err := get(ctx, cc, in)
		if want := map[string]codes.Code{"missing": codes.NotFound}[in]; status.Code(err) != want {
			t.Error(err)
		}
		if o := w.copyOf("grpc-" + in); o.Compared == nil || o.Compared.Differs() || o.Protocol != fleet.GRPC || in == "missing" && o.GRPCStatus != 5 {
			t.Errorf("%+v", o)
		}
	}
	w.install(inventory(protocol(fleet.GRPC), mirrors(post)), next(protocol(fleet.GRPC), instances("inventory-next-2")), orders())
	w.p.Attach("inventory-next-2", to(startCatalog(t, true, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/grpc")
		rw.Header().Set("Trailer", "Grpc-Status")
		rw.WriteHeader(200)
		rw.Header().Set("Grpc-Status", "7")
	})))
	if _, err := get(metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "grpc-differs"), cc, "a"); err != nil {
		t.Error(err)
	}
	if o := w.copyOf("grpc-differs"); !strings.Contains(strings.Join(o.Compared.Differences, ", "), "gRPC status 7 instead of 0, a body of 0 bytes instead of") {
		t.Errorf("%+v", o.Compared)
	}
}

// Answers are compared wherever they come from: the original from here, the copy from another node.
func TestMirrorOverTheMesh(t *testing.T) {
	m := newMesh(t, "a", "b")
	m.install(inventory(mirrors(), at("inventory-1@a", "inventory-2@b")), next(at("inventory-next-1@b")), orders(at("orders-1@a")))
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, c := range "the same" {
			fmt.Fprint(w, string(c))
			w.(http.Flusher).Flush()
		}
	})
	m.nodes["a"].attach("inventory-1", answer)
	m.nodes["b"].attach("inventory-2", answer)
	m.nodes["b"].attach("inventory-next-1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/other" {
			fmt.Fprint(w, "the sane")
			return
		}
		fmt.Fprint(w, "the same")
	}))
	a := m.nodes["a"]
	addr := a.named("inventory", 80)
	for name, client := range map[string]*http.Client{"h1": a.client(), "h2": h2c(t)} {
		for i := range 20 { // some by either instance
			path, want := "/same", ""
			if i%2 == 1 {
				path, want = "/other", "another body of 8 bytes"
			}
			r := must(http.NewRequest("GET", "http://"+addr+path, nil))
			id := fmt.Sprintf("mesh-%s-%d", name, i)
			r.Header.Set("X-Request-Id", id)
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if string(body) != "the same" {
				t.Errorf("%s %q", res.Status, body)
			}
			if o := a.copyOf(id); o.Compared == nil || strings.Join(o.Compared.Differences, ", ") != want {
				t.Errorf("%s: %+v %+v; want %q", id, o, o.Compared, want)
			}
		}
	}
}
