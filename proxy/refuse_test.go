package proxy_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

func hello(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, "hello") }

func TestRefusals(t *testing.T) {
	ledger := service("ledger", 19)
	ledger.Manifest.Allow = []fleet.Allow{{Caller: "web"}}
	w := newWorld(t, proxy.Config{},
		inventory(),
		service("payments", 18),
		ledger,
		&fleet.Service{Name: "search", Index: 20, Manifest: fleet.Manifest{Service: "search", Ports: []fleet.Port{{Number: 80, Protocol: fleet.HTTP}}}},
		orders(func(s *fleet.Service) {
			s.Manifest.Calls = append(s.Manifest.Calls, fleet.Call{Service: "ledger"}, fleet.Call{Service: "search"})
			s.Manifest.Needs = []fleet.Need{{Name: "db", Port: 5432}}
		}),
	)
	for _, c := range []struct {
		host   string
		port   uint16
		status int
		reason fleet.Reason
		says   []string
	}{
		{"payments", 80, 403, fleet.ReasonUndeclaredCall, []string{
			"orders may not call payments: orders/shoal.yaml does not declare it.\nAdd it under `calls:` (orders/shoal.yaml:12):\n\n    calls:\n      payments: {}\n\nrequest ",
			", reason undeclared-call; more: shoal why "}},
		{"ledger", 80, 403, fleet.ReasonNotAllowed, []string{"`allow` in ledger/shoal.yaml", "- orders"}},
		{"search", 80, 503, fleet.ReasonNotRunning, []string{"shoal up search"}},
		{"inventory", 9999, 404, fleet.ReasonUnknownPort, []string{"8080 (http)"}},
		{"inventory", 443, 403, fleet.ReasonMeshTLS, []string{"http://inventory/"}},
		{"nobody", 80, 404, fleet.ReasonUnknownService, []string{"inventory, payments"}},
		{"api.example.com", 80, 403, fleet.ReasonUndeclaredEgress, []string{"(orders/shoal.yaml:20)", "- api.example.com:80"}},
		{"db", 5432, 503, fleet.ReasonUnboundNeed, []string{"orders.db: \"localhost:5432\""}},
	} {
		addr := w.named(c.host, c.port)
		res, body := w.get("http://" + addr + "/x")
		if res.StatusCode != c.status || res.Header.Get("Shoal-Reason") != string(c.reason) {
			t.Errorf("%s:%d: %s, reason %s; want %d %s", c.host, c.port, res.Status, res.Header.Get("Shoal-Reason"), c.status, c.reason)
		}
		contains(t, body, c.says...)
		o := w.observed(res.Header.Get("X-Request-Id"))
		if o.Reason != string(c.reason) || o.Status != c.status || o.Detail == "" || o.Path != "/x" {
			t.Errorf("%s:%d: observed %+v", c.host, c.port, o)
		}
	}
}

func TestRefusedGRPCOverHTTP1GetsAStatus(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	r := must(http.NewRequest("POST", "http://"+w.named("nobody", 80), strings.NewReader("x")))
	r.Header.Set("Content-Type", "application/grpc+proto")
	res, body := w.do(r)
	if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "12" || body != "" {
		t.Errorf("%s %v %q", res.Status, res.Header, body)
	}
	contains(t, res.Header.Get("Grpc-Message"), "nobody")
}

func TestAllowNarrowsMethodsAndPaths(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(func(s *fleet.Service) {
		s.Manifest.Allow = []fleet.Allow{{Caller: "orders", Methods: []string{"GET"}, Paths: []string{"/items/*", "/health"}}}
	}), orders())
	w.attach("inventory-1", http.HandlerFunc(hello))
	addr := w.named("inventory", 80)
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/items/1?x=y", 200}, {"GET", "/health", 200}, {"POST", "/items/1", 403}, {"GET", "/healthy", 403},
		{"GET", "/items/../admin", 403}, {"GET", "/items/%2e%2e/admin", 403}, {"GET", "/items//admin", 403}, {"GET", "/", 403},
	} {
		res, _ := w.exchangeRaw(addr, c.method+" "+c.path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		if res.StatusCode != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, res.StatusCode, c.status)
		}
	}
}

func TestMalformed(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	seen := make(chan string, 100)
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { seen <- r.URL.Path }))
	addr := w.named("inventory", 80)
	for _, text := range []string{
		"GET / HTTP/1.1\n\n",
		"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
		"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
		"hello\r\n\r\n",
		"\x05\x01\x00", // SOCKS: cut short, but nothing that could still become a request
		"GET /%s HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",
	} {
		res, body := w.exchangeRaw(addr, text)
		if res.StatusCode < 400 || !res.Close || res.Header.Get("Shoal-Reason") != string(fleet.ReasonMalformed) {
			t.Errorf("%q: %s %v", text, res.Status, res.Header)
		}
		contains(t, body, "RFC 9112")
		if o := w.observed(res.Header.Get("X-Request-Id")); o.Reason != string(fleet.ReasonMalformed) {
			t.Errorf("%q: observed %+v", text, o)
		}
	}
	if len(seen) != 0 {
		t.Errorf("the application saw %q", <-seen)
	}
}

// A body that turns out malformed after its head was forwarded never looks whole to the application.
func TestMalformedLater(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	began, read := make(chan bool, 1), make(chan error, 1)
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		began <- true
		_, err := io.ReadAll(r.Body)
		read <- err
	}))
	c, r := w.raw(w.named("inventory", 80))
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	<-began
	io.WriteString(c, "nonsense\r\n")
	if res, _ := w.readResponse(r, "POST"); res.StatusCode != 400 || !res.Close {
		t.Errorf("%s", res.Status)
	}
	if err := <-read; err == nil {
		t.Error("the application read a whole body")
	}
}

func TestMalformedAnswers(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	addr := w.named("inventory", 80)
	for _, c := range []struct {
		answer string
		reason fleet.Reason
	}{
		{"nonsense\r\n\r\n", fleet.ReasonUpstreamMalformed},
		{"HTTP/1.1 200 OK\nContent-Length: 0\n\n", fleet.ReasonUpstreamMalformed},
		{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", fleet.ReasonUpstreamMalformed},
		{"HTTP/1.1 101 X\r\nUpgrade: y\r\nConnection: upgrade\r\n\r\n", fleet.ReasonUpstreamMalformed},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz", fleet.ReasonUpstreamMalformed},
		{"HTTP/1.1 200", fleet.ReasonUpstreamReset},
		{"", fleet.ReasonUpstreamReset},
	} {
		w.script("inventory-1", c.answer)
		res, body := w.exchangeRaw(addr, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		if res.StatusCode != 502 || res.Header.Get("Shoal-Reason") != string(c.reason) {
			t.Errorf("%q: %s %v %q", c.answer, res.Status, res.Header, body)
		}
	}
}

// script makes an instance's application answer anything with text and close.
func (w *world) script(instance, text string) {
	l := w.listen()
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 4096)
			c.Read(b)
			io.WriteString(c, text)
			c.Close()
		}
	}()
	w.p.Attach(instance, dialTo(l.Addr().String()))
}

func TestAnswerThatBreaksOff(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	addr := w.named("inventory", 80)
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
	} {
		w.script("inventory-1", answer)
		res, err := w.client().Get("http://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%q: %q looked whole", answer, body)
		}
	}
	w.script("inventory-1", "HTTP/1.1 200 OK\r\n\r\nto the end")
	if _, body := w.get("http://" + addr); body != "to the end" {
		t.Errorf("%q", body)
	}
}

func TestRefusedTLSGetsAnAlert(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	for _, at := range []struct {
		host string
		port uint16
	}{{"inventory", 443}, {"api.example.com", 443}, {"inventory", 80}} {
		_, err := tls.Dial("tcp", w.named(at.host, at.port), &tls.Config{InsecureSkipVerify: true})
		if err == nil || !strings.Contains(err.Error(), "remote error: tls: access denied") {
			t.Errorf("%s:%d: %v", at.host, at.port, err)
		}
	}
}

func TestRefusedHTTP2IsAnswered(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: &protocols}}
	url := "http://" + w.named("api.example.com", 9000)
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 403 || res.ProtoMajor != 2 {
		t.Errorf("%s %s", res.Proto, res.Status)
	}
	contains(t, string(body), "- api.example.com:9000")
	r := must(http.NewRequest("POST", url, nil))
	r.Header.Set("Content-Type", "application/grpc")
	if res, err := client.Do(r); err != nil || res.Header.Get("Grpc-Status") != "7" {
		t.Errorf("%v %v", res, err)
	}
}

// What speaks neither gets a reset, after a moment in which it could have spoken.
func TestRefusedBytesAreReset(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	for _, first := range []string{"\x00\x00\x00\x08\x04\xd2\x16\x2f", ""} {
		c, r := w.raw(w.named("db.example.com", 5432))
		io.WriteString(c, first)
		_, err := r.ReadByte()
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after %q: %v", first, err)
		}
	}
	if len(w.recorder.Failures(10)) != 2 {
		t.Errorf("recorded %+v", w.recorder.Failures(10))
	}
}

func TestLearning(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), service("payments", 18), orders(func(s *fleet.Service) { s.Learn = true }))
	w.attach("payments-1", http.HandlerFunc(hello))
	if res, body := w.get("http://" + w.named("payments", 80)); res.StatusCode != 200 || body != "hello" {
		t.Errorf("%s %q", res.Status, body)
	}
	l := w.listen()
	go http.Serve(l, http.HandlerFunc(hello))
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if _, body := w.get("http://" + w.named("127.0.0.1", port)); body != "hello" {
		t.Errorf("%q", body)
	}
	eventually(t, "both are learned", func() bool {
		learned := map[string]bool{}
		for _, l := range w.recorder.Learned() {
			learned[l.Service+" "+l.Section+" "+l.Entry] = true
		}
		return learned["orders calls payments"] && learned[fmt.Sprintf("orders egress 127.0.0.1:%d", port)]
	})
}
