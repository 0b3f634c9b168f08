package proxy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h2"
)

// http2Upstream holds the HTTP/2 connections to an endpoint, by port.
type http2Upstream struct {
	mu    sync.Mutex // guards links
	links []*http2Link
}

// http2Link is the way to one port of an endpoint: few connections, each with many streams, so that
// one write carries the frames of many calls.
type http2Link struct {
	port            uint16
	caller, address string
	via             *peer // another process; nil: an application

	dialing chan struct{} // held by who dials; a connection that it opens serves all who wait
	conns   atomic.Pointer[[]*h2.Conn]
	mu      sync.Mutex // guards changes of conns
	plain   atomic.Int64
}

// An application on an `http` port that does not answer the preface within plainWait, or not with
// SETTINGS, is taken for one that speaks HTTP/1.1 only: for good where it answered with something else,
// else for a while, since it may just have begun.
const (
	plainWait   = 250 * time.Millisecond
	plainAWhile = time.Minute
	plainAlways = 1<<63 - 1
)

// link returns the way to a port; to a builtin name each caller has its own.
func (pl *place) link(port uint16, caller string) *http2Link {
	if pl.via != nil {
		return &pl.via.calls
	}
	if pl.builtin == nil {
		caller = ""
	}
	up := &pl.endpoint.h2
	up.mu.Lock()
	defer up.mu.Unlock()
	for _, l := range up.links {
		if l.port == port && l.caller == caller && l.address == pl.address {
			return l
		}
	}
	l := &http2Link{port: port, caller: caller, address: pl.address, dialing: make(chan struct{}, 1)}
	l.conns.Store(new([]*h2.Conn))
	up.links = append(up.links, l)
	return l
}

// drainHTTP2 gives the endpoint's connections no further stream: each closes with its last.
func (e *endpoint) drainHTTP2() {
	e.h2.mu.Lock()
	links := slices.Clone(e.h2.links)
	e.h2.mu.Unlock()
	for _, l := range links {
		for _, c := range *l.conns.Load() {
			c.Shutdown()
		}
	}
}

// endHTTP2 closes the endpoint's connections and waits for their goroutines.
func (e *endpoint) endHTTP2() {
	e.h2.mu.Lock()
	links := slices.Clone(e.h2.links)
	e.h2.mu.Unlock()
	for _, l := range links {
		for _, c := range *l.conns.Load() {
			c.Close()
			<-c.Done()
		}
	}
}

// speaksHTTP1 reports whether the application behind the link is known not to speak HTTP/2.
func (l *http2Link) speaksHTTP1(now int64) bool { return l.plain.Load() > now }

// open sends a request of source's on a connection that takes one, or returns nil where there is none. Services
// that share a connection to a peer are served in turn.
func (l *http2Link) open(source string, b *h2.Batch, h *h2.Head, end bool, r h2.Receiver) *h2.Stream {
	for _, c := range *l.conns.Load() {
		s, err := c.Open(b, h, end, r)
		if err != nil {
			continue
		}
		if l.via != nil {
			s.SetSource(source)
		}
		return s
	}
	return nil
}

func (l *http2Link) available() bool {
	return slices.ContainsFunc(*l.conns.Load(), (*h2.Conn).Available)
}

// connect opens a connection for x, unless another exchange has just done so. Its zero outcome says to
// try again: there is a connection now, or it is known that the application speaks HTTP/1.1.
func (l *http2Link) connect(x *exchange) outcome {
	ctx, cancel := x.context(dialTimeout)
	defer cancel()
	if l.via != nil {
		return l.via.reach(ctx, x, l)
	}
	select {
	case l.dialing <- struct{}{}:
		defer func() { <-l.dialing }()
	case <-ctx.Done():
		return x.outOfTime(ctx)
	}
	x.dialed = true
	if l.available() || l.speaksHTTP1(x.p.now()) {
		return outcome{}
	}
	nc, err := x.place.dial(ctx, x.route.port.Number, x.source.Service)
	if err != nil {
		x.place.dialFailed()
		return unreachable(err)
	}
	c := h2.NewClient(nc, x.p.http2Config())
	go func() {
		_ = c.Run(x.p.ctx, nil) // each of its streams is told why
		l.remove(c)
	}()
	if o := l.settle(ctx, x, c); o.reason != "" || l.speaksHTTP1(x.p.now()) {
		c.Close()
		return o
	}
	x.place.dialWorked()
	l.add(c)
	return outcome{}
}

// http2Config are the limits of HTTP/2 connections, on both sides.
func (p *Proxy) http2Config() h2.Config {
	return h2.Config{
		MaxHeaderList: uint32(p.cfg.MaxHead), MaxFields: p.cfg.MaxFields, MaxStreams: uint32(p.cfg.MaxStreams),
		MaxResets: p.cfg.MaxResets, MaxControl: p.cfg.MaxControl, HeadTime: p.cfg.HeadTime, Idle: p.cfg.Idle,
		Stall: p.cfg.Idle, WriteTimeout: p.cfg.Idle,
		Guard: guardedPrefix, ExtendedConnect: true,
	}
}

func unreachable(err error) outcome {
	return outcome{reason: fleet.ReasonConnectFailed, unseen: true, detail: "cannot be reached: " + err.Error()}
}

// settle waits for the other side's SETTINGS: before them no request is sent, so that whoever turns
// out to speak HTTP/1.1 only has not seen it.
func (l *http2Link) settle(ctx context.Context, x *exchange, c *h2.Conn) outcome {
	mayBePlain := x.route.port.Protocol != fleet.GRPC
	wait := dialTimeout
	if mayBePlain {
		wait = plainWait
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-c.Settled():
		return outcome{}
	case <-c.Done():
		select {
		case <-c.Settled(): // it spoke HTTP/2 before it ended
			return outcome{}
		default:
		}
		return l.silent(x, mayBePlain, c.Err())
	case <-timer.C:
		return l.silent(x, mayBePlain, errors.New("no HTTP/2 settings came"))
	case <-ctx.Done():
		return x.outOfTime(ctx)
	}
}

// outOfTime is the outcome where ctx ended before there was a connection.
func (x *exchange) outOfTime(ctx context.Context) outcome {
	o := unreachable(context.Cause(ctx))
	if !x.deadline.IsZero() && !time.Now().Before(x.deadline) {
		o.reason = fleet.ReasonTimeout
	}
	return o
}

// silent is for an application that did not answer as HTTP/2 does.
func (l *http2Link) silent(x *exchange, mayBePlain bool, err error) outcome {
	var other *h2.ConnError
	spoke := errors.As(err, &other)
	switch {
	case mayBePlain && spoke:
		l.plain.Store(plainAlways)
		return outcome{}
	case mayBePlain:
		l.plain.Store(x.p.now() + int64(plainAWhile))
		return outcome{}
	case spoke:
		return noHTTP2()
	case err == nil:
		err = errors.New("it closed the connection at once")
	}
	return unreachable(err)
}

// noHTTP2 is the outcome for gRPC where the application speaks HTTP/1.1 only.
func noHTTP2() outcome {
	return outcome{reason: fleet.ReasonUpstreamMalformed, detail: "does not speak HTTP/2 on this port, as gRPC needs"}
}

func (l *http2Link) add(c *h2.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := append(slices.Clone(*l.conns.Load()), c)
	l.conns.Store(&list)
	select {
	case <-c.Done():
		l.removeLocked(c) // it ended before it was here to be removed
	default:
	}
}

func (l *http2Link) remove(c *h2.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeLocked(c)
}

func (l *http2Link) removeLocked(c *h2.Conn) {
	list := slices.DeleteFunc(slices.Clone(*l.conns.Load()), func(o *h2.Conn) bool { return o == c })
	l.conns.Store(&list)
}
