package broker

import (
	"context"
	"sync"
	"time"
)

const (
	flushPause = 100 * time.Millisecond // at least, between two saves of cursors: each is a sync that commits may have to wait for
	flushRetry = 500 * time.Millisecond // counts as the length of a save that failed
	flushShare = 4                      // a save is followed by a pause of this many times its own length
)

// flusher is woken when a cursor is to be saved.
type flusher struct {
	wake   chan struct{}
	saving sync.Mutex // held through one save, so that an older cursor never replaces a newer one
}

func (f *flusher) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// flushLoop saves cursors in groups, and never so often that saving takes most of the disk's time:
// what a crash finds unsaved is delivered once more.
func (b *Broker) flushLoop(ctx context.Context) {
	for {
		select {
		case <-b.flush.wake:
		case <-ctx.Done():
			return
		}
		start := time.Now()
		err := b.saveCursors()
		if err == nil {
			err = b.saveSchedules()
		}
		if err != nil {
			b.config.Log.Warn("cursors not saved, to be tried again", "error", err)
			b.flush.poke()
			start = start.Add(-flushRetry)
		}
		select {
		case <-time.After(max(flushPause, flushShare*time.Since(start))):
		case <-ctx.Done():
			return
		}
	}
}

// saveCursors saves all cursors that changed. What fails stays to be saved.
func (b *Broker) saveCursors() error {
	b.flush.saving.Lock()
	defer b.flush.saving.Unlock()
	return b.saveCursorsLocked()
}

// saveCursorsLocked is saveCursors. The caller holds b.flush.saving.
func (b *Broker) saveCursorsLocked() error {
	var changed []savedCursor
	var subs []*subscription
	for _, s := range b.subscriptions() {
		if data, dirty := s.save(); dirty {
			changed, subs = append(changed, savedCursor{s.name, data}), append(subs, s)
		}
	}
	e := b.engine.Load()
	if err := e.saveCursors(e.ctx, changed); err != nil {
		for _, s := range subs {
			s.unsaved()
		}
		return err
	}
	return nil
}
