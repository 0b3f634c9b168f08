package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
)

// commit stores a state and puts it in force. It is called by New, before anyone else can, and with
// the lock held.
func (a *Authority) commit(ctx context.Context, s *state) error {
	next, err := prepare(s)
	if err != nil {
		return err // a state that could not be opened again must not be stored
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := a.config.Store.Put(ctx, storeKey, data); err != nil {
		return fmt.Errorf("storing a change of the certificate authority (nothing has changed; try again): %w", err)
	}
	last := a.live.Swap(next)
	if last != nil && last.bundle.Version != next.bundle.Version {
		a.changed.send()
	}
	return nil
}

// prepare makes of a state what its readers need.
func prepare(s *state) (*published, error) {
	b, err := s.bundle()
	if err != nil {
		return nil, err
	}
	t, err := compile(b)
	if err != nil {
		return nil, err
	}
	sig, err := s.signer()
	return &published{state: s, bundle: b, trust: t, signer: sig}, err
}

// signal tells any number of waiters that something has changed. The zero value is ready.
type signal struct {
	mu sync.Mutex
	ch chan struct{} // made by the first waiter, closed by the change
}

func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) send() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
	}
	s.ch = nil
}
