package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Store is a durable key-value store: when Put returns nil, the value survives a power cut. Keys
// consist of letters, digits and `-/_=.`; values are at most 32 MB. It works from [New] until Run returns.
type Store struct{ b *Broker }

// Store returns the broker's key-value store.
func (b *Broker) Store() *Store { return &Store{b} }

// Get returns the value of key, or nil where there is none.
func (s *Store) Get(ctx context.Context, key string) ([]byte, error) {
	e := s.b.home.Load()
	entry, err := e.control.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", key, e.explain(err))
	}
	return entry.Value(), nil
}

// Put sets the value of key and returns once it is synced to disk; an empty value deletes the key.
func (s *Store) Put(ctx context.Context, key string, value []byte) error {
	e := s.b.home.Load()
	ctx, cancel := joinContext(ctx, e.ctx)
	defer cancel()
	var err error
	if len(value) == 0 {
		err = e.control.Delete(ctx, key)
	} else {
		_, err = e.control.Put(ctx, key, value)
	}
	if err != nil {
		return fmt.Errorf("writing %q: %w", key, e.explain(err))
	}
	return nil
}

// Watch calls each for every key that begins with prefix, then once with an empty key, which says
// that all current values were told, then for every change, an empty value meaning that the key is
// deleted. It returns when ctx ends, when each returns an error, or when the broker stops. After a
// recovery from a full disk it tells the current values again.
func (s *Store) Watch(ctx context.Context, prefix string, each func(key string, value []byte) error) error {
	for {
		e := s.b.home.Load()
		err := s.watch(ctx, e, prefix, each)
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if err := s.b.awaitHome(ctx, e); err != nil {
			return err
		}
	}
}

// watch tells one engine's values. It returns nil where the engine ended.
func (s *Store) watch(ctx context.Context, e *engine, prefix string, each func(string, []byte) error) error {
	w, err := e.control.WatchAll(ctx)
	if err != nil && e.err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watching %q: %w", prefix, err)
	}
	defer w.Stop()
	for {
		select {
		case entry, open := <-w.Updates():
			if !open {
				return nil
			}
			if err := tellEntry(entry, prefix, each); err != nil {
				return err
			}
		case <-e.ctx.Done():
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func tellEntry(entry jetstream.KeyValueEntry, prefix string, each func(string, []byte) error) error {
	if entry == nil { // nats.go's mark: what follows are changes
		return each("", nil)
	}
	if !strings.HasPrefix(entry.Key(), prefix) {
		return nil
	}
	if entry.Operation() != jetstream.KeyValuePut {
		return each(entry.Key(), nil)
	}
	return each(entry.Key(), entry.Value())
}

// joinContext returns a context that ends with either of two.
func joinContext(ctx, other context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(other, func() { cancel(context.Cause(other)) })
	return ctx, func() { stop(); cancel(nil) }
}
