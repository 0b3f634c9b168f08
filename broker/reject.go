package broker

import "context"

// Reject ends deliveries of a subscription for good: each becomes a dead letter, with text as its last error, whatever
// attempts are left. It returns one result per id, as Ack does.
func (b *Broker) Reject(ctx context.Context, caller, subscription string, ids []string, text string) ([]error, error) {
	s, err := b.usable(ctx, caller, subscription)
	if err != nil {
		return nil, err
	}
	results := make([]error, len(ids))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, id := range ids {
		results[i] = s.rejectLocked(id, text)
	}
	return results, nil
}

func (s *subscription) rejectLocked(id, text string) error {
	a, ok := parseAckID(id)
	if !ok {
		return ErrAckID
	}
	l := s.window.current(a, a.epoch == s.b.epoch)
	if l == nil {
		return ErrAckID
	}
	g := s.grantLocked(l)
	s.window.leave(l)
	s.b.work.Go(func() { s.bury(g, outcome{fate: failed, text: text}) })
	return nil
}
