package hub

import (
	"context"
	"sync"

	"github.com/shoalrun/shoal/fleet"
)

// progress hands what happens to every operator that follows. Telling it never blocks: each
// follower has a queue of its own.
type progress struct {
	mu        sync.Mutex
	followers map[*follower]struct{}
}

type follower struct {
	mu    sync.Mutex
	queue []fleet.Progress
	wake  chan struct{} // has a buffer of one
}

// maxQueue bounds what a follower that does not read is owed; build output beyond it is lost to it.
const maxQueue = 10000

func newProgress() *progress { return &progress{followers: make(map[*follower]struct{})} }

// Tell tells p to every follower.
func (p *progress) Tell(what fleet.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for f := range p.followers {
		f.put(what)
	}
}

func (f *follower) put(what fleet.Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) < maxQueue {
		f.queue = append(f.queue, what)
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *follower) take() []fleet.Progress {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := f.queue
	f.queue = nil
	return taken
}

// Follow returns a follower of what is told from now on, and the func that ends it.
func (p *progress) Follow() (f *follower, end func()) {
	f = &follower{wake: make(chan struct{}, 1)}
	p.mu.Lock()
	p.followers[f] = struct{}{}
	p.mu.Unlock()
	return f, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.followers, f)
	}
}

// Send sends what was told until ctx ends, and then what is left; an error of send ends it at once.
func (f *follower) Send(ctx context.Context, send func(fleet.Progress) error) error {
	for {
		var over bool
		select {
		case <-ctx.Done():
			over = true
		case <-f.wake:
		}
		for _, p := range f.take() {
			if err := send(p); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
	}
}

// during runs work while send is told all that happens.
func (p *progress) during(ctx context.Context, send func(fleet.Progress) error, work func(context.Context) error) error {
	f, end := p.Follow()
	defer end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	sent := make(chan error, 1)
	go func() {
		defer cancel() // nobody listens any more
		sent <- f.Send(sending, send)
	}()
	err := work(ctx)
	stop()
	if failed := <-sent; failed != nil {
		return failed
	}
	return err
}
