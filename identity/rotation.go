package identity

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Step is where the replacement of a root stands.
type Step string

// The steps of a rotation, in their order; retiring the old root leads back to Steady.
const (
	Steady   Step = "steady"   // one root
	Prepared Step = "prepared" // a new root is trusted; the old one signs
	Switched Step = "switched" // the new root signs; the old one is trusted still
)

// RotationState tells how far the replacement of the root is.
type RotationState struct {
	Step    Step      `json:"step"`
	Since   time.Time `json:"since"`
	Bundle  uint64    `json:"bundle"` // the version in force
	Signer  string    `json:"signer"` // fingerprint of the root that signs
	Other   string    `json:"other,omitempty"`
	Expires time.Time `json:"expires"` // of the root that signs
}

// Held is what a member has in force, by which the authority judges whether a rotation may go on.
// [Source.Held] tells it; nodes report it with their state.
type Held struct {
	Bundle  uint64    `json:"bundle"`  // version
	Signer  string    `json:"signer"`  // fingerprint of the root of its leaf; with several, the oldest
	Expires time.Time `json:"expires"` // of its leaf
}

// RotationState tells how far the replacement of the root is.
func (a *Authority) RotationState() RotationState {
	p := a.live.Load()
	r := RotationState{Step: p.state.Step, Since: p.state.Since, Bundle: p.bundle.Version, Signer: p.bundle.Signer, Expires: p.signer.cert.NotAfter}
	for _, root := range p.trust.roots {
		if f := fingerprint(root); f != r.Signer {
			r.Other = f
		}
	}
	return r
}

// Next returns the step that follows.
func (s Step) Next() Step {
	switch s {
	case Steady:
		return Prepared
	case Prepared:
		return Switched
	}
	return Steady
}

// Rotate takes the next step in the replacement of the root, which must be to, and returns where it
// stands then:
//
//	steady → prepared: a new root is made; everyone is to trust it, the old one signs
//	prepared → switched: the new root signs, and the old one's key is destroyed
//	switched → steady: the old root is not trusted any more
//
// Where the step has been taken already nothing happens, so a request may be repeated. A step is
// refused, with the reason, until everyone is ready for it: held tells what a member (the hub, and
// every node that is not revoked) has in force; false means not known. A node that is away therefore
// holds a rotation up until it comes back or is revoked. held is called with the authority locked: it
// must not call back.
func (a *Authority) Rotate(ctx context.Context, to Step, held func(ID) (Held, bool)) (RotationState, error) {
	moved := false
	err := a.change(ctx, func(s *state, now time.Time) (err error) {
		moved, err = a.step(s, to, held, now)
		return err
	})
	r := a.RotationState()
	if err != nil {
		return r, fmt.Errorf("replacing the root of fleet %s (now %s): %w", a.config.Fleet, r.Step, err)
	}
	if moved {
		a.config.Log.Info("root rotation", "step", r.Step, "signer", r.Signer)
	}
	return r, nil
}

// step takes one step, unless it has been taken.
func (a *Authority) step(s *state, to Step, held func(ID) (Held, bool), now time.Time) (moved bool, err error) {
	if to == s.Step {
		return false, nil
	}
	if to != s.Step.Next() {
		return false, refuse("the next step is %s, not %s", s.Step.Next(), to)
	}
	switch to {
	case Prepared:
		err = a.prepareRoot(s, now)
	case Switched:
		err = s.switchRoot(held)
	case Steady:
		err = s.retireRoot(held)
	}
	if err != nil {
		return false, err
	}
	s.touch(now)
	s.Step, s.Since, s.Needed = to, now, s.Version
	return true, nil
}

func (a *Authority) prepareRoot(s *state, now time.Time) error {
	r, err := newRoot(s.Fleet, now, a.config.RootTTL)
	s.Roots = append(s.Roots, r)
	return err
}

func (s *state) switchRoot(held func(ID) (Held, bool)) error {
	next, err := x509.ParseCertificate(s.Roots[1].Certificate)
	if err != nil {
		return err
	}
	s.Roots[0].Key = nil
	return s.readyToSwitch(fingerprint(next), held)
}

func (s *state) retireRoot(held func(ID) (Held, bool)) error {
	signer, err := x509.ParseCertificate(s.Roots[1].Certificate)
	if err != nil {
		return err
	}
	s.Roots = s.Roots[1:]
	return s.readyToRetire(fingerprint(signer), held)
}

// readyToSwitch asks that everyone trusts the new root: the members, and who joins by a token that
// was made before.
func (s *state) readyToSwitch(next string, held func(ID) (Held, bool)) error {
	for _, id := range s.everyone() {
		if h, ok := held(id); !ok || h.Bundle < s.Needed {
			return refuse("%s has not taken the bundle with the new root yet (version %d, and %d is needed): wait until it is connected, or revoke it", id, h.Bundle, s.Needed)
		}
	}
	for _, t := range s.Tokens {
		if t.UsedBy == "" && !slices.Contains(t.Roots, next) {
			return refuse("a join token for node %s, made before the new root, is open until %s: wait, or revoke node %s", t.Node, stamp(t.Expires), t.Node)
		}
	}
	return nil
}

// readyToRetire asks that nobody shows a certificate of the old root any more.
func (s *state) readyToRetire(signer string, held func(ID) (Held, bool)) error {
	for _, id := range s.everyone() {
		if h, ok := held(id); !ok || h.Signer != signer {
			return refuse("%s holds a certificate of the old root still: it renews by itself once it is connected; wait, or revoke it", id)
		}
	}
	return nil
}

// everyone returns who must follow a rotation: the hub and each node that is not revoked.
func (s *state) everyone() []ID {
	ids := []ID{Hub(s.Fleet)}
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		if s.Nodes[name].Revoked.IsZero() {
			ids = append(ids, Node(s.Fleet, name))
		}
	}
	return ids
}
