package broker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

const (
	recoverEvery = 500 * time.Millisecond
	recoverSpace = 4 << 20 // bytes that must be free, at least, before another engine is tried
)

// recoverLoop replaces an engine that failed for want of space, once there is space again. After any
// other write error nothing is replaced: what the disk holds is then unknown, and people must look.
func (b *Broker) recoverLoop(ctx context.Context) {
	for {
		e := b.engine.Load()
		select {
		case <-e.ctx.Done():
		case <-ctx.Done():
			return
		}
		cause := e.err()
		b.config.Log.Error("the broker takes no events", "error", cause)
		if !curable(cause) || !b.renew(ctx, e) {
			<-ctx.Done()
			return
		}
		b.config.Log.Info("the broker takes events again")
	}
}

func curable(cause error) bool {
	var write *writeError
	return errors.Is(cause, errLost) || errors.As(cause, &write) && write.full()
}

// renew waits for space and opens another engine. It returns false when ctx ends first.
func (b *Broker) renew(ctx context.Context, old *engine) bool {
	old.close()
	for {
		select {
		case <-time.After(recoverEvery):
		case <-ctx.Done():
			return false
		}
		if free, known := freeSpace(b.config.Dir); known && free < max(b.config.Reserve, recoverSpace) {
			continue
		}
		e, err := openEngine(&b.config)
		if err != nil {
			b.config.Log.Error("the broker cannot go on yet", "error", err)
			continue
		}
		b.adopt(e)
		return true
	}
}

// adopt puts an engine in the place of one that failed.
func (b *Broker) adopt(e *engine) {
	b.engine.Store(e)
	b.mu.Lock()
	close(b.renewed)
	b.renewed = make(chan struct{})
	topics := slices.Collect(maps.Values(b.topics))
	b.mu.Unlock()
	for _, t := range topics {
		t.mu.Lock()
		t.stopped = ""
		t.mu.Unlock()
	}
	b.flush.poke()
	b.settler.poke(0)
	b.pumpAll()
}

// awaitEngine waits until another engine has taken the place of old.
func (b *Broker) awaitEngine(ctx context.Context, old *engine) error {
	for {
		b.mu.Lock()
		renewed := b.renewed
		b.mu.Unlock()
		if b.engine.Load() != old {
			return nil
		}
		select {
		case <-renewed:
		case <-b.delivering.Done():
			return errClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
