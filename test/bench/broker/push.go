package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// What the part on pushes has: so many events a second, from so many publishers, each of which waits for its answer.
const (
	ticksPerSecond = 1000
	tickers        = 64
	tickTopic      = "ticks"
)

// push measures how long it takes from when an event is due to be published, by HTTP, until its subscriber has it, by a push, its commit
// included; and how long a bare fsync takes in between.
func push(ctx context.Context, o options) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	f, err := harness.StartFleet(ctx, o.dir, map[string]string{
		"sink":   "service: sink\nrun: " + self + " -role sink -address 127.0.0.1:8080\nlisten: {8080: http}\nsubscribes: {" + tickTopic + ": POST /tick}\n",
		"source": "service: source\nrun: " + self + " -role waiter\npublishes: [" + tickTopic + "]\ncalls: {sink: {}}\n",
	}, "--mode", "netns")
	if err != nil {
		return err
	}
	defer f.Stop()
	var p50s, p99s, floor50s, floor99s []float64
	for round := range o.Rounds + 1 {
		r, err := deliveredTo(ctx, f, self, o.Time)
		if err != nil {
			return err
		}
		floor50, floor99, err := floor(ctx, o.dir, o.Time/2)
		if err != nil {
			return err
		}
		if round > 0 {
			p50s, p99s = append(p50s, milliseconds(r.P50)), append(p99s, milliseconds(r.P99))
			floor50s, floor99s = append(floor50s, floor50), append(floor99s, floor99)
		}
	}
	const name = "publish to push delivered at 1,000/s"
	fmt.Printf("\n%s: p50 %.2f ms, p99 %.2f ms; a bare fsync meanwhile: p50 %.2f ms, p99 %.2f ms\n", name, p50s, p99s, floor50s, floor99s)
	return rows.Save(o.Rows,
		rows.Row{Row: name + ", p50", Sense: "<=", Goal: 1.5, Ours: harness.Median(p50s), Unit: "ms"},
		rows.Row{Row: name + ", p99", Sense: "<=", Goal: 5, Ours: harness.Median(p99s), Unit: "ms"},
		rows.Row{Row: name + ", a bare fsync meanwhile, p50", Ours: harness.Median(floor50s), Unit: "ms"},
		rows.Row{Row: name + ", a bare fsync meanwhile, p99", Ours: harness.Median(floor99s), Unit: "ms"})
}

// deliveredTo runs the publishers in the namespace of their service.
func deliveredTo(ctx context.Context, f *harness.Fleet, self string, length time.Duration) (r harness.Result, err error) {
	text, err := f.Command(ctx, "exec", "source", "--", self, "-role", "source", "-time", length.String()).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return r, err
	}
	err = json.Unmarshal(text, &r)
	return r, err
}

// runSink is the subscriber: it notes how long ago each event was due, and tells whoever asks, once.
func runSink(ctx context.Context, o options) error {
	var mu sync.Mutex
	var took []time.Duration
	mux := http.NewServeMux()
	mux.HandleFunc("POST /tick", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil || len(data) < 8 {
			http.Error(w, "no time in it", http.StatusBadRequest)
			return
		}
		mu.Lock()
		took = append(took, time.Since(time.Unix(0, int64(binary.LittleEndian.Uint64(data)))))
		mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /took", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var out harness.Result
		if len(took) > 0 {
			out = harness.Summary(took)
		}
		_ = json.NewEncoder(w).Encode(out) // who is gone does not ask again
	})
	mux.HandleFunc("POST /again", func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		took = nil
	})
	l, err := net.Listen("tcp", o.address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}

// runSource publishes, and prints what the subscriber says once it has all.
func runSource(ctx context.Context, o options) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: tickers}, Timeout: 10 * time.Second}
	if _, err := call(ctx, client, http.MethodPost, "http://sink/again", nil); err != nil {
		return err
	}
	rate := harness.Rate{PerSecond: ticksPerSecond, Open: true}
	answers, err := harness.Offer(ctx, time.Now().Add(o.Time), rate, tickers, func(due time.Time) error {
		event := make([]byte, size)
		binary.LittleEndian.PutUint64(event, uint64(due.UnixNano()))
		_, err := call(ctx, client, http.MethodPost, "http://events/"+tickTopic, event)
		return err
	})
	if err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		text, err := call(ctx, client, http.MethodGet, "http://sink/took", nil)
		if err != nil {
			return err
		}
		var r harness.Result
		if err := json.Unmarshal(text, &r); err != nil {
			return err
		}
		if r.Requests >= len(answers) {
			_, err := os.Stdout.Write(text)
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("of %d events %d were delivered", len(answers), r.Requests)
		}
	}
}

// call makes one request and returns the body of a good answer.
func call(ctx context.Context, client *http.Client, method, url string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/octet-stream")
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, url, answer.Status, text)
	}
	return text, err
}
