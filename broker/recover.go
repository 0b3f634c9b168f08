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
	recoverSpace = 4 << 20 // bytes that must be free, at least, before another embedded engine is tried
)

// recoverLoop replaces an embedded engine that failed for want of space, once there is space again. After any
// other write error nothing is replaced: what the disk holds is then unknown, and people must look.
func (b *Broker) recoverLoop(ctx context.Context) {
	for {
		e := b.home.Load()
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
		b.home.Store(e)
		if b.engine.CompareAndSwap(old, e) {
			b.adopted()
			return true
		}
		b.renewedNow()
		return true
	}
}

// remoteLoop replaces an engine on external servers whenever its connection ends, and asks again and again whether they sync.
func (b *Broker) remoteLoop(ctx context.Context) {
	tick := time.NewTicker(proofEvery)
	defer tick.Stop()
	for {
		e := b.engine.Load()
		lost := e.ctx.Done()
		if e.external == nil {
			lost = nil
		}
		select {
		case <-lost:
			if b.engine.Load() == e {
				b.rejoin(ctx, e)
			}
		case <-b.switched:
		case <-tick.C:
			if e.proof == nil {
				continue
			}
			e.growAll(e.ctx)
			if err := e.proof.look(e.ctx); err != nil {
				b.config.Log.Warn("whether the NATS servers sync is not known anew", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// rejoin connects to external servers again, until that succeeds or ctx ends.
func (b *Broker) rejoin(ctx context.Context, old *engine) {
	b.config.Log.Error("the broker takes no events until its NATS server is back", "error", old.err())
	old.close()
	last := ""
	for {
		select {
		case <-time.After(recoverEvery):
		case <-ctx.Done():
			return
		}
		if b.engine.Load() != old {
			return
		}
		if !b.moving.TryLock() {
			continue // a move, which will fail
		}
		e, err := b.openExternal(*old.external, old.proof)
		if err == nil {
			err = e.remoteError(b.adopt(old, e))
		}
		b.moving.Unlock()
		if err == nil {
			b.config.Log.Info("the broker takes events again", "engine", e.external.String())
			return
		}
		if err.Error() != last {
			last = err.Error()
			b.config.Log.Error("the broker waits for its NATS server", "error", err)
		}
		next := awayEngine(&b.config, *old.external, err)
		next.proof = old.proof
		if b.engine.CompareAndSwap(old, next) {
			old = next
		}
	}
}

// adopt puts an engine in the place of one that failed. Where nothing was ever read, it reads everything first.
func (b *Broker) adopt(old, e *engine) error {
	if !b.engine.CompareAndSwap(old, e) {
		e.close()
		return nil
	}
	if !b.loaded.Load() {
		if err := b.adoptFirst(e); err != nil {
			b.engine.Store(old)
			e.close()
			return err
		}
	}
	b.adopted()
	return nil
}

// adoptFirst reads everything, and installs what waits for that.
func (b *Broker) adoptFirst(e *engine) error {
	b.installing.Lock()
	defer b.installing.Unlock()
	if err := b.load(e); err != nil {
		return err
	}
	b.loaded.Store(true)
	if b.pending != nil {
		b.installLocked(b.pending)
	}
	b.pending = nil
	return nil
}

// adopted lets everything go on with an engine that has just taken the place of another.
func (b *Broker) adopted() {
	b.renewedNow()
	for i := range b.commits {
		b.commits[i].returned(b.config.Hold)
	}
	b.mu.Lock()
	topics := slices.Collect(maps.Values(b.topics))
	b.mu.Unlock()
	for _, t := range topics {
		t.mu.Lock()
		t.stopped = ""
		t.mu.Unlock()
	}
	b.flush.poke()
	b.settler.poke(0)
	b.schedules.poke()
	b.pumpAll()
}

func (b *Broker) renewedNow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.renewed)
	b.renewed = make(chan struct{})
}

// awaitHome waits until another engine of desired state has taken the place of old.
func (b *Broker) awaitHome(ctx context.Context, old *engine) error {
	for {
		b.mu.Lock()
		renewed := b.renewed
		b.mu.Unlock()
		if b.home.Load() != old {
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
