// Package export follows the records of a process, as shoal.work says at the time: an exporter of spans, and an access
// log. What the operator changes takes effect at once, and costs no record of those that go on.
//
// It stands behind observe in the walks of a call and of an event, and slows neither: one that cannot be had is missed,
// not waited for.
package export

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/observe/otlp"
)

// AccessBytes bounds the access log of one process.
const AccessBytes = 64 << 20

// Config of an [Export]. All fields but Log are required.
type Config struct {
	Recorder *observe.Recorder
	Sampler  *observe.Sampler // whose share follows the settings
	Fleet    string
	Node     string // whose records these are, as spans name it
	Version  string // of this binary
	Getenv   func(string) string
	// Access opens the access log. It is opened once, when records are first wanted.
	Access func() (io.Writer, error)
	Log    *slog.Logger // nil: slog.Default
}

// Export is what follows the records of one process. Its methods are safe for concurrent use.
type Export struct {
	c      Config
	spans  part
	access part
	log    io.Writer // the access log; nil: not open

	mu      sync.Mutex // guards what follows
	now     fleet.Observing
	changed chan struct{} // closed, and made anew, with now
}

// New returns one that follows o. It does nothing before [Export.Run].
func New(c Config, o fleet.Observing) *Export {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	e := &Export{c: c, changed: make(chan struct{})}
	e.Set(o)
	return e
}

// Set puts other settings into force.
func (e *Export) Set(o fleet.Observing) {
	e.c.Sampler.Set(o.Traces.Sample)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now = o
	close(e.changed)
	e.changed = make(chan struct{})
}

// Current returns the settings in force, and what is closed when others take their place.
func (e *Export) Current() (now fleet.Observing, changed <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.now, e.changed
}

// Run exports until ctx ends, and then what is left.
func (e *Export) Run(ctx context.Context) error {
	defer e.access.end()
	defer e.spans.end()
	for {
		now, changed := e.Current()
		e.spans.become("to "+now.Traces.OTLP, func() run { return e.exporter(now.Traces.OTLP) }) // the environment may name a collector, too
		if now.Access.On() {
			e.access.become("on", e.accessLog)
		} else {
			e.access.become("off", func() run { return nil })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (e *Export) exporter(collector string) run {
	to, ok, err := otlp.FromEnvironment(collector, e.c.Getenv)
	if err == nil && !ok {
		return nil
	}
	var x *otlp.Exporter
	if err == nil {
		x, err = otlp.New(otlp.Config{Recorder: e.c.Recorder, Endpoint: to, Fleet: e.c.Fleet, Node: e.c.Node, Version: e.c.Version, Log: e.c.Log})
	}
	if err != nil {
		e.c.Log.Warn("no spans are exported", "error", err)
		return nil
	}
	return x.Run
}

func (e *Export) accessLog() run {
	if e.log == nil {
		w, err := e.c.Access()
		if err != nil {
			e.c.Log.Warn("no access log is written", "error", err)
			return nil
		}
		e.log = w
	}
	wants := func(o *fleet.Observation) bool {
		now, _ := e.Current()
		return now.Access.Wants(o)
	}
	return func(ctx context.Context) error { return e.c.Recorder.WriteAccess(ctx, e.log, wants) }
}

// run follows records until ctx ends, and then what is left.
type run func(ctx context.Context) error

// part is one thing that follows records. Its zero value is none.
type part struct {
	key    string // of what runs now
	cancel context.CancelFunc
	done   chan struct{}
}

// become has what start returns (nil: nothing) run instead, unless key says that it is what runs already.
func (p *part) become(key string, start func() run) {
	if key == p.key {
		return
	}
	p.end()
	p.key = key
	follow := start()
	if follow == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background()) // it ends by end, which waits for what is left
	p.cancel, p.done = cancel, make(chan struct{})
	go func() {
		defer close(p.done)
		_ = follow(ctx) // what it cannot write it counts
	}()
}

func (p *part) end() {
	if p.cancel == nil {
		return
	}
	p.cancel()
	<-p.done
	p.cancel = nil
}
