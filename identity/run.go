package identity

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// The rhythm of renewal.
const (
	renewWithin = 30 * time.Second // for one attempt
	retryFirst  = time.Second      // after a failure; doubled up to retryMost
	retryMost   = time.Minute
	lookAgain   = time.Minute // timers stand still while a machine sleeps, clocks do not
	herd        = 5 * time.Second
)

// Run keeps the source's certificate valid until ctx ends: it renews between 0.4 and 0.5 of the
// certificate's life, and within seconds when the bundle names a new signer. A failure is logged and
// tried again for as long as it takes, also when the certificate has expired meanwhile. It returns
// ErrEmpty at once when there is nothing to renew, and ctx's error otherwise.
func (s *Source) Run(ctx context.Context, renew Obtain) error {
	if s.Empty() {
		return ErrEmpty
	}
	for {
		share := rand.Float64() // this process's place among those that renew at the same time
		if err := s.untilDue(ctx, share); err != nil {
			return err
		}
		if err := s.renew(ctx, renew); err != nil {
			return err
		}
	}
}

// untilDue returns when the certificate is to be renewed. share, from 0 to 1, spreads many members.
func (s *Source) untilDue(ctx context.Context, share float64) error {
	for {
		changed := s.Changed()
		if s.held.Load().stale() {
			return sleep(ctx, retryFirst+time.Duration(share*float64(herd)), nil)
		}
		wait := s.dueIn(share)
		if wait <= 0 {
			return ctx.Err()
		}
		if err := sleep(ctx, min(wait, lookAgain), changed); err != nil {
			return err
		}
	}
}

// dueIn returns how long a renewal by the certificate's age can wait.
func (s *Source) dueIn(share float64) time.Duration {
	leaf := s.held.Load().chain[0]
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	due := leaf.NotBefore.Add(time.Duration((0.4 + share/10) * float64(life)))
	return due.Sub(s.config.Now())
}

// stale tells whether another root signs now than that of the leaf.
func (h *held) stale() bool { return h.root != h.trust.bundle.Signer }

// renew tries until it succeeds; it fails only with ctx.
func (s *Source) renew(ctx context.Context, renew Obtain) error {
	pause := retryFirst
	for {
		err := s.attempt(ctx, renew)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			s.config.Log.Info("certificate renewed", "id", s.ID().String(), "expires", stamp(s.Expiry()))
			return nil
		}
		if errors.Is(err, ErrRefused) {
			pause = retryMost
		}
		s.config.Log.Warn("renewing the certificate failed; trying again", "id", s.ID().String(), "in", pause, "expires", stamp(s.Expiry()), "error", err)
		if err := sleep(ctx, pause/2+rand.N(pause/2), nil); err != nil {
			return err
		}
		pause = min(2*pause, retryMost)
	}
}

func (s *Source) attempt(ctx context.Context, renew Obtain) error {
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	return s.Obtain(ctx, renew)
}

// Follow takes each bundle of an authority in the same process into use, until ctx ends, whose error
// it returns: the hub's own source needs no connection to learn of a revocation.
func (s *Source) Follow(ctx context.Context, a *Authority) error {
	for {
		changed := a.Changed()
		err := s.SetBundle(a.Bundle())
		if err == nil {
			err = sleep(ctx, lookAgain, changed)
		} else {
			s.config.Log.Warn("the new trust bundle cannot be used; trying again", "error", err)
			err = sleep(ctx, retryFirst, nil)
		}
		if err != nil {
			return err
		}
	}
}

// sleep returns after d, or at once when wake is closed; its error is ctx's.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
