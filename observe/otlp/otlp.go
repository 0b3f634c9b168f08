// Package otlp sends spans to a collector by the OpenTelemetry protocol
// (https://opentelemetry.io/docs/specs/otlp/, 1.3): over HTTP in protobuf, or over gRPC.
//
// It stands behind the data path, not in it: an [Exporter] follows the ring of records of an [observe.Recorder] and
// makes spans of what is sampled. Where the collector is slower than the traffic, spans are dropped and counted; no
// call ever waits for one.
package otlp

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// Config of an [Exporter]. Recorder and Endpoint are required.
type Config struct {
	Recorder *observe.Recorder
	Endpoint Endpoint
	Fleet    string // service.namespace of every span
	Node     string // where the recorder is: `local`, `hub`
	Version  string // of Shoal
	Log      *slog.Logger
}

const (
	readInterval = 200 * time.Millisecond // between two looks at the ring
	batchSpans   = 512                    // in one message, about
	queueBatches = 32                     // that wait for the collector; more are dropped
	attempts     = 5                      // to send one batch
	firstBackoff = 500 * time.Millisecond
	lastBackoff  = 5 * time.Second
	flushTime    = 3 * time.Second // for what is left when the process ends
	complainTime = time.Minute     // between two complaints of the same collector
)

// Exporter sends the spans of one process.
type Exporter struct {
	c      Config
	sender sender
	queue  chan *batch

	complained atomic.Int64 // when a loss was last logged, in ns since 1970
}

// sender takes a message to the collector. rejected is how many of its spans the collector did not want.
type sender interface {
	send(ctx context.Context, data *tracepb.TracesData) (rejected int64, err error)
	close()
}

// passing is an error after which the same message may be sent again, no sooner than after.
type passing struct {
	error
	after time.Duration
}

func (p passing) Unwrap() error { return p.error }

// New returns an exporter. It connects to nothing before [Exporter.Run].
func New(c Config) (*Exporter, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s, err := c.Endpoint.dial(c.Version)
	if err != nil {
		return nil, err
	}
	return &Exporter{c: c, sender: s, queue: make(chan *batch, queueBatches)}, nil
}

// Run sends the spans of what is recorded from now on until ctx ends, and what is left then for a moment longer.
func (e *Exporter) Run(ctx context.Context) error {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		e.sendAll(sending)
	}()
	e.follow(ctx)
	close(e.queue)
	timer := time.AfterFunc(flushTime, cancel)
	defer timer.Stop()
	<-sent
	e.sender.close()
	return nil
}

// follow makes batches of what is recorded.
func (e *Exporter) follow(ctx context.Context) {
	f := e.c.Recorder.Follow()
	tick := time.NewTicker(readInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			e.read(f)
			e.read(f) // the first one settles what the second reads
			return
		case <-tick.C:
			e.read(f)
		}
	}
}

func (e *Exporter) read(f *observe.Follower) {
	b := e.newBatch()
	missed := f.Read(wanted, func(o fleet.Observation) {
		if b.add(&o); b.spans >= batchSpans {
			e.enqueue(b)
			b = e.newBatch()
		}
	})
	if b.spans > 0 {
		e.enqueue(b)
	}
	e.c.Recorder.Spans.Dropped.Add(missed)
}

func wanted(o *fleet.Observation) bool { return o.Sampled && o.SpanID != (fleet.SpanID{}) }

func (e *Exporter) enqueue(b *batch) {
	select {
	case e.queue <- b:
	default:
		e.drop(b.spans, errors.New("the collector is slower than the traffic"))
	}
}

func (e *Exporter) sendAll(ctx context.Context) {
	for b := range e.queue {
		rejected, err := e.send(ctx, b.message())
		if err != nil {
			e.drop(b.spans, err)
			continue
		}
		if rejected = min(max(rejected, 0), int64(b.spans)); rejected > 0 {
			e.drop(int(rejected), errors.New("the collector rejects a part"))
		}
		e.c.Recorder.Spans.Written.Add(uint64(b.spans) - uint64(rejected))
	}
}

// send sends one message, again where the collector may take it later.
func (e *Exporter) send(ctx context.Context, m *tracepb.TracesData) (rejected int64, err error) {
	backoff := firstBackoff
	for try := 1; ; try++ {
		limited, cancel := context.WithTimeout(ctx, e.c.Endpoint.timeout())
		rejected, err = e.sender.send(limited, m)
		cancel()
		var again passing
		if err == nil || !errors.As(err, &again) || try == attempts {
			return rejected, err
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(max(again.after, backoff/2+rand.N(backoff))):
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// drop counts spans that are lost, and says so, not too often.
func (e *Exporter) drop(spans int, why error) {
	e.c.Recorder.Spans.Dropped.Add(uint64(spans))
	now := time.Now().UnixNano()
	last := e.complained.Load()
	if now-last < int64(complainTime) || !e.complained.CompareAndSwap(last, now) {
		return
	}
	e.c.Log.Warn("spans are dropped; calls do not wait for them", "collector", e.c.Endpoint.URL, "spans", spans, "error", why)
}
