package h2_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/wire/h2"
	"golang.org/x/net/http2"
)

// echo answers with the request's body, its method and path in fields, and a trailer.
func echo(s *h2.Stream, _ *h2.Batch) {
	go func() {
		defer s.Release(nil)
		q := s.Head()
		_ = s.SendHead(nil, &h2.Head{Status: 200, Fields: []h2.Field{
			{Name: "x-method", Value: q.Method}, {Name: "x-path", Value: q.Path}, {Name: "x-authority", Value: q.Authority},
		}}, false)
		if _, err := io.Copy(s, s); err != nil {
			return
		}
		_ = s.CloseWrite(&h2.Head{Fields: []h2.Field{{Name: "x-sum", Value: "done"}}})
	}()
}

func clients() map[string]http.RoundTripper {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return map[string]http.RoundTripper{
		"net/http": &http.Transport{Protocols: &p},
		//lint:ignore SA1019 another implementation than ours and the standard one of today is wanted here
		"x/net": &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, n, a string, _ *tls.Config) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, n, a)
		}},
	}
}

func TestServerAnswersRealClients(t *testing.T) {
	l := listen(t)
	serve(t, l, h2.Config{}, echo)
	through := startRelay(t, l.Addr().String(), h2.Config{})
	for _, addr := range []string{l.Addr().String(), through} {
		for name, rt := range clients() {
			t.Run(name+" "+addr, func(t *testing.T) { exchange(t, rt, addr) })
		}
	}
}

func exchange(t *testing.T, rt http.RoundTripper, addr string) {
	client := &http.Client{Transport: rt, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			body := strings.Repeat(fmt.Sprint(i), i*i*1000)
			res, err := client.Post("http://"+addr+fmt.Sprintf("/p/%d?q", i), "text/plain", io.MultiReader(strings.NewReader(body)))
			if err != nil {
				t.Error(err)
				return
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(got) != body || res.Trailer.Get("X-Sum") != "done" || res.Header.Get("X-Path") != fmt.Sprintf("/p/%d?q", i) {
				t.Errorf("request %d: %d bytes, trailer %v, header %v, error %v", i, len(got), res.Trailer, res.Header, err)
			}
		})
	}
	wg.Wait()
}

// serveHTTP runs a real server.
func serveHTTP(t testing.TB, h http.Handler) string {
	l := listen(t)
	s := &http.Server{Handler: h, Protocols: &http.Protocols{}}
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func TestClientAsksRealServer(t *testing.T) {
	addr := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo", r.Header.Get("X-Ask"))
		w.Header().Set("Trailer", "X-End")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(207)
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-End", r.Trailer.Get("X-Last"))
	}))
	for _, to := range []string{addr, startRelay(t, addr, h2.Config{})} {
		c := dial(t, to, h2.Config{})
		h := &h2.Head{Method: "POST", Scheme: "http", Path: "/", Authority: "here", Fields: []h2.Field{{Name: "x-ask", Value: "a"}, {Name: "trailer", Value: "x-last"}}}
		s, err := c.Open(nil, h, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("0123456789"), 100_000)
		go func() {
			_, _ = s.Write(want)
			_ = s.CloseWrite(&h2.Head{Fields: []h2.Field{{Name: "x-last", Value: "z"}}})
		}()
		head, err := s.ReadHead(t.Context())
		if err != nil || head.Status != 207 || head.Get("x-echo") != "a" {
			t.Fatal(head, err)
		}
		got, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatal(len(got), err)
		}
		if end := s.Trailers(); end == nil || end.Get("x-end") != "z" {
			t.Fatal("trailers", end)
		}
		s.Release(nil)
		eventually(t, "no stream is left", func() bool { return c.Streams() == 0 })
	}
}

func TestResponsesWithoutBody(t *testing.T) {
	addr := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		if r.URL.Path == "/304" {
			w.WriteHeader(304)
		}
	}))
	c := dial(t, startRelay(t, addr, h2.Config{}), h2.Config{})
	for _, q := range []h2.Head{{Method: "HEAD", Path: "/"}, {Method: "GET", Path: "/304"}} {
		q.Scheme, q.Authority = "http", "here"
		s, err := c.Open(nil, &q, true, nil)
		if err != nil {
			t.Fatal(err)
		}
		head, err := s.ReadHead(t.Context())
		if err != nil {
			t.Fatal(q.Path, err)
		}
		if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatal(head, n, err)
		}
		s.Release(nil)
	}
}

// A slow reader slows its writer: what is on the way stays within the windows.
func TestSlowReaderSlowsWriter(t *testing.T) {
	var sent counter
	addr := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.Copy(io.MultiWriter(w, &sent), io.LimitReader(zeros{}, 64<<20))
	}))
	c := dial(t, startRelay(t, addr, h2.Config{}), h2.Config{})
	get := func() *h2.Stream {
		s, err := c.Open(nil, &h2.Head{Method: "GET", Scheme: "http", Path: "/", Authority: "a"}, true, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.ReadHead(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s
	}
	slow := get()
	eventually(t, "the writer stands still", func() bool {
		before := sent.n()
		time.Sleep(50 * time.Millisecond)
		return before > 0 && sent.n() == before
	})
	if n := sent.n(); n > 1<<20 {
		t.Fatalf("%d bytes were taken from the writer though nobody reads", n)
	}
	quick := get() // is not stopped by the slow one
	if n, err := io.Copy(io.Discard, quick); n != 64<<20 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := io.Copy(io.Discard, slow); n != 64<<20 || err != nil {
		t.Fatal(n, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

type counter struct {
	mu    sync.Mutex
	total int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.total += int64(len(p))
	c.mu.Unlock()
	return len(p), nil
}
func (c *counter) n() int64 { c.mu.Lock(); defer c.mu.Unlock(); return c.total }
