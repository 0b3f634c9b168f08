package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// scripted is an instance that reads a request, says its text, and closes the connection.
func (w *world) scripted(text string) (addr string, seen *atomic.Int32) {
	l := w.listen()
	w.t.Cleanup(func() { l.Close() })
	seen = new(atomic.Int32)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := c.Read(make([]byte, 64<<10)); err == nil {
					seen.Add(1)
					io.WriteString(c, text)
				}
			}()
		}
	}()
	return l.Addr().String(), seen
}

// What is sent again, and what is not: by what became of the first attempt, and by whether the request may be
// repeated.
func TestRetryTable(t *testing.T) {
	const yes, no = true, false
	for _, c := range []struct {
		name                 string
		answer               string // of the instance that is asked first; `refused`: it does not listen
		get, post, postByKey bool   // whether another instance answers in its place
	}{
		{"connection refused", "refused", yes, yes, yes},
		{"closed without an answer", "", yes, no, yes},
		{"closed within a head", "HTTP/1.1 200 OK\r\nContent-", yes, no, yes},
		{"closed within a body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", no, no, no},
		{"503", "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", yes, no, yes},
		{"503 and when to come again", "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", no, no, no},
		{"429", "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", no, no, no},
		{"500", "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", no, no, no},
		{"not HTTP", "\x16\x03\x01 what?\r\n\r\n", no, no, no},
	} {
		for _, r := range []struct {
			method, key string
			repeated    bool
		}{{"GET", "", c.get}, {"POST", "", c.post}, {"POST", "k", c.postByKey}} {
			t.Run(fmt.Sprint(c.name, " ", r.method, r.key), func(t *testing.T) {
				w := newWorld(t, proxy.Config{}, inventory(instances("a", "b"), func(s *fleet.Service) { leastRequest(s, nil) }), orders())
				addr, seen := w.scripted(c.answer)
				if c.answer == "refused" {
					l := w.listen()
					addr = l.Addr().String()
					l.Close()
				}
				w.attach("b", says("b"))
				named, client := w.named("inventory", 80), w.client()
				for i := range 200 {
					w.p.Attach("a", dialTo(addr)) // as new
					req := must(http.NewRequest(r.method, "http://"+named, nil))
					req.Header.Set("X-Request-Id", fmt.Sprint("r", i))
					if r.key != "" {
						req.Header.Set("Idempotency-Key", r.key)
					}
					res, err := client.Do(req)
					body := ""
					if err == nil {
						all, _ := io.ReadAll(res.Body)
						res.Body.Close()
						body = string(all)
					}
					o := w.observed(fmt.Sprint("r", i))
					if len(o.Attempts) == 0 || o.Attempts[0].Instance != "a" {
						continue
					}
					if repeated := strings.HasPrefix(body, "b "); repeated != r.repeated || (len(o.Attempts) > 1) != r.repeated {
						t.Errorf("%+v", o)
					}
					if c.answer != "refused" && seen.Load() == 0 {
						t.Error("a saw nothing")
					}
					return
				}
				t.Fatal("a was never asked first")
			})
		}
	}
}

// A dependency that hangs holds what it can, is refused beyond that, and takes nothing from calls to others.
func TestSlowDependency(t *testing.T) {
	catalog := service("catalog", 18)
	w := newWorld(t, proxy.Config{}, catalog, inventory(func(s *fleet.Service) { s.Manifest.Concurrency = 20 }),
		orders(func(s *fleet.Service) { s.Manifest.Calls = append(s.Manifest.Calls, fleet.Call{Service: "catalog"}) }))
	w.attach("catalog-1", says("catalog"))
	var busy atomic.Int32
	w.attach("inventory-1", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		busy.Add(1)
		<-r.Context().Done()
	}))
	slow, quick, client := w.named("inventory", 80), w.named("catalog", 80), w.client()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var refused atomic.Int32
	for range 100 {
		wg.Go(func() {
			res, err := client.Do(must(http.NewRequestWithContext(ctx, "GET", "http://"+slow, nil)))
			if err != nil {
				return
			}
			res.Body.Close()
			if res.Header.Get("Shoal-Reason") == string(fleet.ReasonOverloaded) {
				refused.Add(1)
			}
		})
	}
	eventually(t, "the rest is refused", func() bool { return refused.Load() == 80 })
	for range 200 {
		if res, body := w.get("http://" + quick); res.StatusCode != 200 || !strings.HasPrefix(body, "catalog ") {
			t.Fatalf("%s %s", res.Status, body)
		}
	}
	if busy.Load() != 20 {
		t.Errorf("%d are at work", busy.Load())
	}
	cancel()
	wg.Wait()
}
