package proxy

import (
	"context"
	"time"
)

// Attach says how to reach a local instance, from now on; calls that wait for it go on. Connections to what
// was attached before take no further exchange. It ends a Drain.
func (p *Proxy) Attach(instance string, d Dialer) {
	p.mu.Lock()
	e := p.endpointLocked(instance)
	p.mu.Unlock()
	e.draining.Store(false)
	e.afresh()
	e.forget()
	e.since.Store(p.now())
	e.dialer.Store(&d)
	e.closeIdle(time.Now().Add(time.Hour))
	e.drainHTTP2()
	p.wake()
}

// Detach says that a local instance cannot be reached: calls go elsewhere, or wait.
func (p *Proxy) Detach(instance string) {
	p.mu.Lock()
	e := p.endpoints[instance]
	p.mu.Unlock()
	if e == nil {
		return
	}
	e.dialer.Store(nil)
	e.closeIdle(time.Now().Add(time.Hour))
	p.wake()
}

// Drain gives an instance no further exchange, closes its kept-alive connections as they become
// idle, and returns once it has no exchange left: nil then, or ctx's error. Tunnels count as
// exchanges. An instance that is not known has none. Attach ends a drain.
func (p *Proxy) Drain(ctx context.Context, instance string) error {
	p.mu.Lock()
	e := p.endpoints[instance]
	p.mu.Unlock()
	if e == nil {
		return nil
	}
	left := make(chan struct{}, 1)
	e.left.Store(&left)
	e.draining.Store(true)
	e.closeIdle(time.Now().Add(time.Hour))
	e.drainHTTP2()
	tick := time.NewTicker(100 * time.Millisecond) // for one of two who drain the same instance
	defer tick.Stop()
	for e.busy.all() > 0 {
		select {
		case <-left:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
