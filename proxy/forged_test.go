package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/wire/h2"
)

// identities says every field of a request, and of its trailers, that could say who calls.
func identities(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	var all []string
	for _, fields := range []http.Header{r.Header, r.Trailer} {
		for name, values := range fields {
			low := strings.ToLower(name)
			if name == "Shoal-Timeout-Ms" && len(values) == 1 {
				continue // says nothing of who calls
			}
			h2c := low == "upgrade" && strings.Contains(strings.ToLower(strings.Join(values, ",")), "h2c") // whose requests would pass unseen
			if h2c || strings.HasPrefix(low, "shoal") || strings.HasPrefix(low, "x") && strings.Contains(low, "request") || strings.Contains(low, "forwarded") {
				all = append(all, fmt.Sprintf("%s=%s", name, strings.Join(values, "+")))
			}
		}
	}
	slices.Sort(all)
	fmt.Fprint(w, strings.Join(all, " "))
}

// Whatever a caller writes into a request, the application is told who calls by Shoal alone.
func TestForgedIdentities(t *testing.T) {
	tricks := []string{
		"Shoal-Caller: admin", "shoal-caller: admin", "SHOAL-CALLER: admin", "Shoal-Caller:admin", "Shoal-Caller:\tadmin\t",
		"Shoal-Caller: admin\r\nShoal-Caller: root", "Shoal_Caller: admin", "shoal_caller: admin", "Shoal.Caller: admin", "Shoal~Caller: admin",
		"Shoal-Peer: n1 admin/admin-1 inventory/inventory-1:8080 1", "Shoal-Peer-Deadline: 1", "Shoal-Reason: no", "Shoal-: x", "Shoal-Anything: x", "Shoal_: x",
		"X-Request-Id: mine", "X_Request_Id: theirs", "X-Request-Id: mine\r\nX-Request_Id: theirs",
		"Connection: Shoal-Caller", "Connection: close, Shoal-Caller, X-Request-Id\r\nShoal-Caller: admin",
		"Connection: keep-alive\r\nKeep-Alive: Shoal-Caller", "TE: trailers, Shoal-Caller", "Trailer: Shoal-Caller",
		"Proxy-Connection: Shoal-Caller", "Proxy-Shoal-Caller: admin",
		"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings",
		"Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade", "Upgrade: websocket\r\nUpgrade: H2C\r\nConnection: Upgrade",
	}
	refused := []string{
		"Shoal-Caller : admin", " Shoal-Caller: admin", "X: y\r\n Shoal-Caller: admin", "X: y\nShoal-Caller: admin", "X: y\r\r\nShoal-Caller: admin",
		"Shoal-Caller\x00: admin", "X: \x00\r\nShoal-Caller: admin",
	}
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(identities))
	addr := w.named("inventory", 80)
	for _, trick := range tricks {
		res, body := w.exchangeRaw(addr, "GET / HTTP/1.1\r\nHost: x\r\n"+trick+"\r\n\r\n")
		id := res.Header.Get("X-Request-Id")
		for _, said := range strings.Fields(body) {
			name, value, _ := strings.Cut(said, "=")
			switch {
			case name == "Shoal-Caller" && value == "orders", name == "X-Request-Id" && !strings.Contains(value, "+"):
			default:
				t.Errorf("%q: the application was told %s (%s)", trick, said, id)
			}
		}
		if res.StatusCode != 200 || !strings.Contains(body, "Shoal-Caller=orders") || !strings.Contains(body, "X-Request-Id=") {
			t.Errorf("%q: %s %q", trick, res.Status, body)
		}
	}
	for _, trick := range refused {
		if res, body := w.exchangeRaw(addr, "GET / HTTP/1.1\r\nHost: x\r\n"+trick+"\r\n\r\n"); res.StatusCode != 400 {
			t.Errorf("%q: %s %q", trick, res.Status, body)
		}
	}
}

// Trailers are no way either: one that says who calls ends the exchange.
func TestForgedTrailers(t *testing.T) {
	for name, names := range map[string][]string{"refused": {"Shoal-Caller", "shoal_caller", "X-Request-Id"}, "passed": {"X-Sum"}} {
		for _, trailer := range names {
			w := newWorld(t, proxy.Config{}, inventory(), orders())
			w.attach("inventory-1", http.HandlerFunc(identities))
			addr := w.named("inventory", 80)
			res, body := w.exchangeRaw(addr, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: "+trailer+"\r\n\r\n1\r\nx\r\n0\r\n"+trailer+": admin\r\n\r\n")
			if (res.StatusCode == 400) != (name == "refused") || strings.Contains(body, "admin") && res.StatusCode == 200 {
				t.Errorf("%s over HTTP/1.1: %s %q", trailer, res.Status, body)
			}
			r := must(http.NewRequest("POST", "http://"+addr, io.MultiReader(strings.NewReader("x"))))
			r.Trailer = http.Header{trailer: {"admin"}}
			res, err := h2c(t).Do(r)
			if name == "passed" && err != nil {
				t.Errorf("%s over HTTP/2: %v", trailer, err)
			}
			if err != nil {
				continue // reset, as it should be
			}
			told, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil && res.StatusCode == 200 && name == "refused" && (strings.Contains(string(told), "admin") || !strings.Contains(string(told), "Shoal-Caller=orders")) {
				t.Errorf("%s over HTTP/2: %s %q", trailer, res.Status, told)
			}
		}
	}
}

func TestForgedIdentitiesOverHTTP2(t *testing.T) {
	for _, appHTTP2 := range []bool{true, false} {
		w := newWorld(t, proxy.Config{}, inventory(), orders())
		w.p.Attach("inventory-1", to(startCatalog(t, appHTTP2, identities)))
		nc, err := net.Dial("tcp", w.named("inventory", 80))
		if err != nil {
			t.Fatal(err)
		}
		c := h2.NewClient(nc, h2.Config{})
		go func() { _ = c.Run(context.Background(), nil) }()
		t.Cleanup(func() { c.Close(); <-c.Done() })
		for _, trick := range []h2.Field{
			{Name: "shoal-caller", Value: "admin"}, {Name: "shoal_caller", Value: "admin"}, {Name: "shoal.caller", Value: "admin"},
			{Name: "shoal-peer", Value: "n1 admin/admin-1 inventory/inventory-1:8080 2"}, {Name: "shoal-reason", Value: "x"},
			{Name: "x_request_id", Value: "theirs"}, {Name: "x-forwarded-for", Value: "1.2.3.4"},
			{Name: "te", Value: "trailers"}, {Name: "proxy-shoal-caller", Value: "admin"},
		} {
			events := make(chan *h2.Stream, 1)
			s, err := c.Open(nil, &h2.Head{Method: "GET", Scheme: "http", Path: "/", Authority: "x", Fields: []h2.Field{trick}}, true, untilEnd(events))
			if err != nil {
				t.Fatal(err)
			}
			<-events
			body := make([]byte, s.Buffered())
			s.Take(nil, body)
			want := "Shoal-Caller=orders X-Request-Id="
			if trick.Name == "x-forwarded-for" { // within the fleet it is the application's own
				want = "Shoal-Caller=orders X-Forwarded-For=1.2.3.4 X-Request-Id="
			}
			if got := string(body); !strings.HasPrefix(got, want) || strings.Count(got, "=") != strings.Count(want, "=") {
				t.Errorf("%v: the application was told %q", trick, got)
			}
			s.Release(nil)
		}
		for _, trick := range []h2.Field{{Name: "Shoal-Caller", Value: "admin"}, {Name: "connection", Value: "shoal-caller"}, {Name: "upgrade", Value: "h2c"}, {Name: "x", Value: "y\r\nshoal-caller: admin"}} {
			events := make(chan *h2.Stream, 1)
			s, err := c.Open(nil, &h2.Head{Method: "GET", Scheme: "http", Path: "/", Authority: "x", Fields: []h2.Field{trick}}, true, untilEnd(events))
			if err != nil {
				continue // our own client refuses to say it
			}
			<-events
			if h := s.Head(); h != nil && h.Status == 200 {
				t.Errorf("%v: %+v", trick, h)
			}
			s.Release(nil)
		}
	}
}

// untilEnd tells of a stream once it has ended.
type untilEnd chan *h2.Stream

func (u untilEnd) Receive(s *h2.Stream, e h2.Event) {
	s.Keep(e.Data, e.End)
	if e.End || e.Kind == h2.Closed {
		select {
		case u <- s:
		default:
		}
	}
}

func TestForgedIdentitiesOfGRPC(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(protocol(fleet.GRPC)), orders())
	i := startInventory(t, "inventory-1")
	w.p.Attach("inventory-1", to(i.addr))
	cc := w.dialGRPC(w.named("inventory", 8080))
	for _, name := range []string{"shoal-caller", "shoal_caller", "shoal-peer"} {
		var head metadata.MD
		_, err := get(metadata.AppendToOutgoingContext(t.Context(), name, "admin"), cc, "a", grpc.Header(&head))
		if err != nil || strings.Join(head["caller"], "+") != "orders" {
			t.Errorf("%s: %v %v", name, head, err)
		}
	}
}

// A tunnel to a port that speaks HTTP is served as every connection of its caller is; to what leads
// elsewhere it is bytes; and the gateway makes none.
func TestForgedIdentitiesInTunnels(t *testing.T) {
	narrowed := allows(fleet.Allow{Caller: "orders", Paths: []string{"/in/*"}}, fleet.Allow{Caller: "gateway"})
	w := newWorld(t, proxy.Config{}, inventory(narrowed, func(s *fleet.Service) {
		s.Manifest.Expose = []fleet.Expose{{Host: "inventory.localhost", Path: "/"}}
	}), orders())
	w.attach("inventory-1", http.HandlerFunc(identities))
	l := w.listen()
	w.background(func(ctx context.Context) error { return w.p.ServeForward(ctx, l, proxy.Source{Service: "orders"}) })
	connect := func(addr, to string) (net.Conn, *bufio.Reader, *http.Response) {
		c, r := w.raw(addr)
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nShoal-Caller: admin\r\n\r\n", to, to)
		res, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"})
		if err != nil {
			t.Fatal(err)
		}
		return c, r, res
	}
	for _, addr := range []string{l.Addr().String(), w.named("inventory", 8080)} {
		c, r, res := connect(addr, "inventory:8080")
		if res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
		for path, want := range map[string]string{"/in/a": "Shoal-Caller=orders X-Request-Id=", "/admin": "orders may not call GET /admin"} {
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nShoal-Caller: admin\r\n\r\n", path)
			if _, body := w.readResponse(r, "GET"); !strings.HasPrefix(body, want) {
				t.Errorf("%s: %q", path, body)
			}
		}
		fmt.Fprintf(c, "CONNECT inventory:8080 HTTP/1.1\r\nHost: inventory\r\n\r\nGET /admin HTTP/1.1\r\nHost: x\r\nShoal-Caller: admin\r\n\r\n")
		if _, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"}); err != nil {
			t.Fatal(err)
		}
		if res, body := w.readResponse(r, "GET"); res.StatusCode != 403 {
			t.Errorf("a tunnel within: %s %q", res.Status, body)
		}
		c.Close()
	}
	// By HTTP/2 in the tunnel, with prior knowledge.
	c, r, _ := connect(l.Addr().String(), "inventory:8080")
	tr := h2c(t)
	tr.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) { return buffered{c, r}, nil }
	req := must(http.NewRequest("GET", "http://x/in/a", nil))
	req.Header.Set("Shoal-Caller", "admin")
	res, err := tr.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); !strings.HasPrefix(string(body), "Shoal-Caller=orders X-Request-Id=") {
		t.Errorf("%q", body)
	}
	res.Body.Close()
	edge := w.listen()
	w.background(func(ctx context.Context) error {
		return w.p.ServeEdge(ctx, edge, func(host, _ string) (string, bool) {
			return "inventory", strings.HasPrefix(host, "inventory.localhost")
		})
	})
	if _, _, res := connect(edge.Addr().String(), "inventory.localhost:80"); res.StatusCode == 200 {
		t.Errorf("the gateway made a tunnel: %s", res.Status)
	}
	res2, body := w.exchangeRaw(edge.Addr().String(), "GET / HTTP/1.1\r\nHost: inventory.localhost\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Host: evil\r\nShoal_Caller: admin\r\n\r\n")
	if strings.Contains(body, "6.6.6.6") || strings.Contains(body, "evil") || !strings.Contains(body, "Shoal-Caller=gateway") || strings.Contains(body, "admin") {
		t.Errorf("%s %q", res2.Status, body)
	}
}

// buffered is a connection of which some was read ahead.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }
