package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// client is a browser that resolves web.localhost, which not every resolver does.
type client struct {
	gateway string
	http    *http.Client
}

func newClient(gateway string) *client {
	return &client{gateway, &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}}
}

func (c *client) get(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, "GET", path, "", nil)
}

func (c *client) post(ctx context.Context, sku, key string) ([]byte, error) {
	return c.do(ctx, "POST", "/api/orders", key, fmt.Appendf(nil, `{"sku":%q,"quantity":1}`, sku))
}

func (c *client) do(ctx context.Context, method, path, key string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.gateway+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Host = "web.localhost"
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s answered %s: %s", method, path, resp.Status, bytes.TrimSpace(text))
	}
	return text, err
}

// load is customers at work.
type load struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu     sync.Mutex // guards result
	result result
}

type result struct {
	gets, posts, failed int
	slowest             time.Duration
	first               error // the first failure
}

func (r result) String() string {
	s := fmt.Sprintf("%d GETs and %d POSTs, %d failed; the slowest waited %v", r.gets, r.posts, r.failed, r.slowest.Round(time.Millisecond))
	if r.first != nil {
		s += "; the first failure: " + r.first.Error()
	}
	return s
}

const customers = 16

func startLoad(ctx context.Context, gateway string) *load {
	stopped, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel}
	c := newClient(gateway)
	for i := range customers {
		l.wait.Go(func() { l.customer(stopped, context.WithoutCancel(ctx), c, i) })
	}
	return l
}

// customer reads and orders in turn, at human speed times fifty. A request that has begun is let end.
func (l *load) customer(stopped, ctx context.Context, c *client, number int) {
	for n := 0; stopped.Err() == nil; n++ {
		start := time.Now()
		var err error
		post := n%4 == 3
		if post {
			_, err = c.post(ctx, "notebook", fmt.Sprintf("load-%d-%d-%d", number, n, start.UnixNano()))
		} else {
			_, err = c.get(ctx, "/api/orders?limit=5")
		}
		l.count(post, time.Since(start), err)
		pause(stopped, 20*time.Millisecond)
	}
}

func (l *load) count(post bool, took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.result
	r.slowest = max(r.slowest, took)
	if post {
		r.posts++
	} else {
		r.gets++
	}
	if err != nil {
		r.failed++
		if r.first == nil {
			r.first = err
		}
	}
}

func (l *load) stop() result {
	l.cancel()
	l.wait.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.result
}

// transcript collects lines that another goroutine may look at meanwhile.
type transcript struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (t *transcript) read(r io.Reader) {
	buffer := make([]byte, 4096)
	for {
		n, err := r.Read(buffer)
		t.mu.Lock()
		t.text.Write(buffer[:n])
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}
