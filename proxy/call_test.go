package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

func TestCall(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Shoal-Reason", "forged")
		fmt.Fprintf(rw, "%s %s host=%s caller=%q id=%q evil=%q accept=%q", r.Method, r.URL, r.Host,
			r.Header["Shoal-Caller"], r.Header["X-Request-Id"], r.Header["Shoal-Evil"], r.Header.Get("Accept"))
	}))
	r := must(http.NewRequest("GET", "http://"+w.named("inventory", 80)+"/a?b=c", nil))
	r.Header.Set("Shoal-Caller", "root")
	r.Header.Set("shoal-evil", "1")
	r.Header.Set("X-Request-Id", "mine-1")
	r.Header.Set("Accept", "x")
	res, body := w.do(r)
	if res.StatusCode != 200 || res.Header.Get("Shoal-Reason") != "" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	contains(t, body, "GET /a?b=c host="+r.URL.Host, `caller=["orders"]`, `id=["mine-1"]`, `evil=[]`, `accept="x"`)

	o := w.observed("mine-1")
	if o.Caller != "orders" || o.Callee != "inventory" || o.Method != "GET" || o.Path != "/a?b=c" || o.Status != 200 ||
		o.Kind != fleet.KindCall || len(o.Attempts) != 1 || o.Attempts[0].Instance != "inventory-1" || o.Attempts[0].Outcome != "200" {
		t.Errorf("observed %+v", o)
	}
	edges := w.recorder.Edges()
	if len(edges) != 1 || edges[0].From != "orders" || edges[0].To != "inventory" || edges[0].Requests != 1 || edges[0].Errors != 0 {
		t.Errorf("edges %+v", edges)
	}
}

func TestRequestIDs(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		io.WriteString(rw, r.Header.Get("X-Request-Id"))
	}))
	addr := w.named("inventory", 8080)
	_, made := w.get("http://" + addr)
	if len(made) != 26 || w.observed(made).Status != 200 {
		t.Errorf("made %q", made)
	}
	r := must(http.NewRequest("GET", "http://"+addr, nil))
	r.Header.Set("X-Request-Id", "not valid; "+strings.Repeat("x", 100))
	if _, id := w.do(r); len(id) != 26 || id == made {
		t.Errorf("kept %q", id)
	}
}

func TestBodies(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(rw).EnableFullDuplex()
		rw.Header().Set("Trailer", "X-Count")
		n, _ := io.Copy(rw, r.Body)
		rw.Header().Set("X-Count", fmt.Sprint(n, r.Trailer.Get("X-Sum")))
	}))
	url := "http://" + w.named("inventory", 80)
	for _, size := range []int{0, 1, 100, 15_000, 17_000, 64_000, 100_000, 3_000_000} {
		for _, length := range []int64{int64(size), -1} {
			text := strings.Repeat("0123456789", size/10+1)[:size]
			r := must(http.NewRequest("POST", url, io.NopCloser(strings.NewReader(text))))
			r.ContentLength = length
			if length < 0 {
				r.Trailer = http.Header{"X-Sum": {"s"}}
			}
			res, body := w.do(r)
			want := fmt.Sprint(size, r.Trailer.Get("X-Sum"))
			if res.StatusCode != 200 || body != text || res.Trailer.Get("X-Count") != want {
				t.Errorf("%d bytes (length %d): %s, %d back, trailer %q, want %q", size, length, res.Status, len(body), res.Trailer, want)
			}
		}
	}
}

func TestBodilessAnswers(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			rw.WriteHeader(204)
		case "/304":
			rw.Header().Set("ETag", `"x"`)
			rw.WriteHeader(304)
		default:
			rw.Header().Set("Content-Length", "5")
			io.WriteString(rw, "hello")
		}
	}))
	c, r := w.raw(w.named("inventory", 80))
	for _, x := range []struct {
		method, path string
		status       int
		body         string
	}{{"HEAD", "/", 200, ""}, {"GET", "/204", 204, ""}, {"GET", "/304", 304, ""}, {"HEAD", "/304", 304, ""}, {"GET", "/", 200, "hello"}} {
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: inventory\r\n\r\n", x.method, x.path)
		if res, body := w.readResponse(r, x.method); res.StatusCode != x.status || body != x.body {
			t.Errorf("%s %s: %d %q", x.method, x.path, res.StatusCode, body)
		}
	}
}

func TestKeepAliveBothSides(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	remotes := map[string]bool{}
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		remotes[r.RemoteAddr] = true
		io.WriteString(rw, "x")
	}))
	c, r := w.raw(w.named("inventory", 80))
	for range 50 {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		w.readResponse(r, "GET")
	}
	if len(remotes) != 1 {
		t.Errorf("%d connections upstream", len(remotes))
	}
}

func TestPipelining(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "%s%s", r.URL.Path, body)
	}))
	c, r := w.raw(w.named("inventory", 80))
	go func() {
		for i := range 200 {
			if i%3 == 0 {
				fmt.Fprintf(c, "POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\n%s", i, strings.Repeat("b", 300))
				continue
			}
			fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
		}
	}()
	for i := range 200 {
		want := fmt.Sprintf("/%d", i)
		if i%3 == 0 {
			want += strings.Repeat("b", 300)
		}
		if _, body := w.readResponse(r, "GET"); body != want {
			t.Fatalf("answer %d is %q", i, body)
		}
	}
}

func TestHTTP10(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			rw.(http.Flusher).Flush()
		}
		io.WriteString(rw, "hello")
	}))
	addr := w.named("inventory", 80)
	c, r := w.raw(addr)
	for range 3 {
		io.WriteString(c, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
		if res, body := w.readResponse(r, "GET"); body != "hello" || res.Header.Get("Connection") != "keep-alive" {
			t.Fatalf("%q %v", body, res.Header)
		}
	}
	c, _ = w.raw(addr)
	io.WriteString(c, "GET /stream HTTP/1.0\r\n\r\n")
	all, err := io.ReadAll(c)
	if err != nil || !strings.HasSuffix(string(all), "\r\n\r\nhello") {
		t.Errorf("%q %v", all, err)
	}
}

func TestContinue(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			http.Error(rw, "no", http.StatusForbidden)
			return
		}
		body, _ := io.ReadAll(r.Body)
		rw.Write(body)
	}))
	addr := w.named("inventory", 80)
	c, r := w.raw(addr)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	line := must(r.ReadString('\n'))
	blank := must(r.ReadString('\n'))
	if !strings.HasPrefix(line, "HTTP/1.1 100") || blank != "\r\n" {
		t.Fatalf("%q %q", line, blank)
	}
	io.WriteString(c, "hello")
	if _, body := w.readResponse(r, "POST"); body != "hello" {
		t.Errorf("%q", body)
	}
	res, _ := w.exchangeRaw(addr, "POST /no HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if res.StatusCode != 403 || !res.Close {
		t.Errorf("%s, close %v", res.Status, res.Close)
	}
}

// Request and answer flow at the same time: an application may answer each piece as it comes.
func TestDuplex(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(rw)
		_ = rc.EnableFullDuplex()
		rc.Flush()
		b := make([]byte, 64)
		for {
			n, err := r.Body.Read(b)
			rw.Write([]byte(strings.ToUpper(string(b[:n]))))
			rc.Flush()
			if err != nil {
				return
			}
		}
	}))
	in, out := io.Pipe()
	r := must(http.NewRequest("POST", "http://"+w.named("inventory", 80), in))
	res, err := w.client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for i := range 20 {
		text := fmt.Sprintf("piece %d", i)
		io.WriteString(out, text)
		b := make([]byte, len(text))
		if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != strings.ToUpper(text) {
			t.Fatalf("%q %v", b, err)
		}
	}
	out.Close()
	if rest, err := io.ReadAll(res.Body); len(rest) != 0 || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

// An application may answer before it has read the request.
func TestEarlyAnswer(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(413)
		io.WriteString(rw, "too much")
	}))
	addr := w.named("inventory", 80)
	c, r := w.raw(addr)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nabc")
	if res, body := w.readResponse(r, "POST"); res.StatusCode != 413 || body != "too much" {
		t.Errorf("%s %q", res.Status, body)
	}
}

func TestStreamsWithoutBuffering(t *testing.T) {
	w := newWorld(t, proxy.Config{Timeout: 200 * time.Millisecond}, inventory(), orders())
	step := make(chan struct{})
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(rw)
		rc.Flush()
		for range step {
			io.WriteString(rw, "data: x\n\n")
			rc.Flush()
		}
	}))
	res, err := w.client().Get("http://" + w.named("inventory", 80))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b := make([]byte, 9)
	for range 5 {
		time.Sleep(100 * time.Millisecond) // longer in all than the call's timeout, which does not bound a stream
		step <- struct{}{}
		if _, err := io.ReadFull(res.Body, b); err != nil {
			t.Fatal(err)
		}
	}
	close(step)
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Error(err)
	}
}

func TestConnectionCloseFromTheApplication(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Connection", "close")
		io.WriteString(rw, "hello")
	}))
	c, r := w.raw(w.named("inventory", 80))
	for range 3 { // it ends the connection behind the proxy, not the caller's
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if res, body := w.readResponse(r, "GET"); body != "hello" || res.Close {
			t.Fatalf("%q %v", body, res.Header)
		}
	}
}

func TestLargeHeads(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Back", r.Header.Get("X-Big"))
	}))
	addr := w.named("inventory", 80)
	r := must(http.NewRequest("GET", "http://"+addr, nil))
	r.Header.Set("X-Big", strings.Repeat("v", 50_000))
	if res, _ := w.do(r); len(res.Header.Get("X-Back")) != 50_000 {
		t.Errorf("%s: %d bytes back", res.Status, len(res.Header.Get("X-Back")))
	}
	r.Header.Set("X-Big", strings.Repeat("v", 70_000))
	res, body := w.do(r)
	if res.StatusCode != 431 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonTooLarge) {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	contains(t, body, "limits: {head: …}", "65536")
}
