package broker

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
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
	var msgs []message
	var subs []*subscription
	for _, s := range b.subscriptions() {
		if data, dirty := s.save(); dirty {
			msgs, subs = append(msgs, message{subject: cursorsPrefix + token(s.name), data: data}), append(subs, s)
		}
	}
	e := b.engine.Load()
	for len(msgs) > 0 {
		n := min(len(msgs), batchMost)
		if _, err := e.store(msgs[:n]); err != nil {
			for _, s := range subs {
				s.unsaved()
			}
			return err
		}
		msgs, subs = msgs[n:], subs[n:]
	}
	return nil
}

// dropCursor removes a subscription's cursor.
func (e *engine) dropCursor(ctx context.Context, name string) error {
	if err := e.cursors.Purge(ctx, jetstream.WithPurgeSubject(cursorsPrefix+token(name))); err != nil {
		return unavailable("the cursor of subscription %s is not removed: %v", name, e.explain(err))
	}
	return nil
}

// loadCursors reads every saved cursor.
func (e *engine) loadCursors(ctx context.Context) (map[string]cursor, error) {
	out := make(map[string]cursor)
	err := e.each(ctx, e.cursors, cursorsPrefix+"*", func(m *jetstream.RawStreamMsg) error {
		c, err := decodeCursor(m.Data)
		if err == nil {
			out[c.name] = *c
		}
		return err
	})
	return out, err
}
