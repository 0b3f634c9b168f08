package sidecar

import (
	"context"
	"fmt"

	"github.com/shoalrun/shoal/sidecar/shim"
)

// Adopt takes over the shims that an earlier process left. It returns also those whose applications
// have ended meanwhile: their Done is closed, or about to be. What is left of a shim that has died is
// ended and forgotten.
func (m *Manager) Adopt(ctx context.Context) ([]*Sidecar, error) {
	records, err := m.records()
	if err != nil {
		return nil, fmt.Errorf("what runs already cannot be seen: %w", err)
	}
	var adopted []*Sidecar
	for _, r := range records {
		s := newSidecar(m, r)
		if m.claim(s) != nil {
			continue // this process runs it
		}
		if s.adopt(ctx) != nil {
			m.endLeftover(r)
			m.disown(s)
			continue
		}
		s.join()
		adopted = append(adopted, s)
	}
	return adopted, nil
}

// adopt connects to a shim and serves its sockets here.
func (s *Sidecar) adopt(ctx context.Context) error {
	c, err := shim.Dial(s.m.socketPath(s.rec.Assignment.Instance))
	if err != nil {
		return err
	}
	s.link, s.process = newLink(c), peerProcess(c)
	ctx, cancel := context.WithTimeout(ctx, shimPatience)
	defer cancel()
	a, err := s.link.call(ctx, shim.Message{Verb: shim.VerbAttach})
	if err == nil && (a.Status == nil || !a.Status.Running) {
		closeAll(a.files)
		err = fmt.Errorf("its application never started")
	}
	if err != nil {
		_ = c.Close()
		return err
	}
	s.m.ports.reserve(s.rec.Ports)
	s.takePID(a)
	if a.Status.Exit != nil {
		closeAll(a.files)
		offer(s.link.exit, *a.Status.Exit)
		return nil
	}
	if err := s.serve(a); err != nil {
		s.stopServing()
		_ = c.Close()
		return err
	}
	return nil
}
