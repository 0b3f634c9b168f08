//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// lockedBuffer is a buffer that one goroutine writes while another reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// load calls an exposed service from several clients, without a pause between calls.
type load struct {
	requests atomic.Int64
	mu       sync.Mutex
	failures []string
	stop     chan struct{}
	clients  sync.WaitGroup
}

// loadClients and loadMax bound a load: it ends by itself.
const (
	loadClients = 4
	loadMax     = 2 * time.Minute
)

// startLoad begins a load; every answer but 200 is a failure.
func (w *world) startLoad(service, path string) *load {
	w.Helper()
	l := &load{stop: make(chan struct{})}
	base := "http://" + w.status().Gateway + path
	for i := range loadClients {
		l.clients.Go(func() { l.client(i, base, service+".localhost") })
	}
	w.eventually("the load began", func() bool { return l.requests.Load() > 10 })
	return l
}

func (l *load) client(i int, url, host string) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	end := time.After(loadMax)
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		case <-end:
			return
		default:
			l.once(client, url, host, (i+n)%2 == 0)
		}
	}
}

// once makes one call: a GET, or a POST that may be repeated.
func (l *load) once(client *http.Client, url, host string, post bool) {
	method := http.MethodGet
	var body io.Reader
	if post {
		method, body = http.MethodPost, bytes.NewReader([]byte("payload"))
	}
	req, _ := http.NewRequest(method, url, body)
	req.Host = host
	if post {
		req.Header.Set("Idempotency-Key", fmt.Sprint(l.requests.Load()))
	}
	resp, err := client.Do(req)
	l.requests.Add(1)
	if err != nil {
		l.fail(err.Error())
		return
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK {
		l.fail(fmt.Sprintf("%s: %d %s %v", method, resp.StatusCode, text, err))
	}
}

func (l *load) fail(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, text)
}

// end stops the load and fails the test if one request failed.
func (l *load) end(w *world) {
	w.Helper()
	close(l.stop)
	l.clients.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.failures); n > 0 {
		w.Errorf("%d of %d requests failed; the first: %s", n, l.requests.Load(), l.failures[0])
	}
	w.Logf("%d requests", l.requests.Load())
}
