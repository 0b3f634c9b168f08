package identity_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalrun/shoal/identity"
)

// errAway is what a node hears of a hub that is not there.
var errAway = errors.New("connection refused")

// running is a node in a synctest bubble, whose Run renews with an authority that may be away.
type running struct {
	*identity.Authority
	node    *identity.Source
	away    atomic.Bool
	renewed atomic.Int64
}

func run(t *testing.T, ttl time.Duration) *running {
	a, err := identity.New(t.Context(), identity.Config{Fleet: "shop", Store: &disk{}, LeafTTL: ttl})
	must(t, err)
	node, err := identity.OpenSource(identity.SourceConfig{})
	must(t, err)
	token, err := a.Token(t.Context(), "a", 0)
	must(t, err)
	must(t, node.Obtain(t.Context(), func(ctx ctx, csr []byte) (identity.Issued, error) { return a.Join(ctx, token, csr) }))
	r := &running{Authority: a, node: node}
	stop, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- node.Run(stop, r.renew) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return r
}

func (r *running) renew(ctx ctx, csr []byte) (identity.Issued, error) {
	if r.away.Load() {
		return identity.Issued{}, errAway
	}
	r.renewed.Add(1)
	return r.Renew(ctx, certificatesOf(r.node), csr)
}

func TestRunRenewsBeforeHalfOfTheLife(t *testing.T) {
	for _, ttl := range []time.Duration{30 * time.Second, time.Hour, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			r := run(t, ttl)
			for range 40 {
				left := time.Until(r.node.Expiry())
				if left < ttl/2 {
					t.Fatalf("of %s only %s are left", ttl, left)
				}
				time.Sleep(ttl / 10)
				synctest.Wait()
			}
			if n := r.renewed.Load(); n < 8 || n > 13 {
				t.Errorf("renewed %d times in 4 lives", n)
			}
		})
	}
}

func TestRunOutlivesAHubThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, time.Hour)
		r.away.Store(true)
		time.Sleep(2 * 24 * time.Hour)
		if time.Now().Before(r.node.Expiry()) {
			t.Fatal("the certificate has not expired, so this proves nothing")
		}
		r.away.Store(false)
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if left := time.Until(r.node.Expiry()); left < 58*time.Minute {
			t.Errorf("a minute after the hub came back, %s are left", left)
		}
	})
}

func TestRunFollowsARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, 24*time.Hour)
		hub, err := identity.OpenSource(identity.SourceConfig{})
		must(t, err)
		issue := func(ctx ctx, csr []byte) (identity.Issued, error) {
			return r.Issue(ctx, identity.Hub("shop"), csr)
		}
		must(t, hub.Obtain(t.Context(), issue))
		stop, cancel := context.WithCancel(t.Context())
		defer cancel()
		go hub.Run(stop, issue)
		held := func(id identity.ID) (identity.Held, bool) {
			if id.Kind == identity.KindHub {
				return hub.Held(), true
			}
			return r.node.Held(), true
		}
		for _, to := range []identity.Step{identity.Prepared, identity.Switched, identity.Steady} {
			must2(r.Rotate(t.Context(), to, held))(t)
			must(t, hub.SetBundle(r.Bundle()))
			must(t, r.node.SetBundle(r.Bundle()))
			time.Sleep(7 * time.Second)
			synctest.Wait()
			if got := r.node.Held(); got.Signer != r.RotationState().Signer || got.Bundle != r.Bundle().Version {
				t.Errorf("%s: the node holds %+v", to, got)
			}
		}
	})
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, time.Hour)
		stop, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.node.Follow(stop, r.Authority) }()
		for _, node := range []string{"b", "c"} {
			token, err := r.Token(t.Context(), node, 0)
			must(t, err)
			_, err = r.Join(t.Context(), token, csr(t))
			must(t, err)
			must(t, r.Revoke(t.Context(), node))
			synctest.Wait()
			if r.node.Bundle().Version != r.Bundle().Version {
				t.Error("the source does not follow")
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow ended with %v", err)
		}
	})
}

func TestRunKeepsAskingWhenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, time.Hour)
		must(t, r.Revoke(t.Context(), "a"))
		time.Sleep(time.Hour)
		asked := r.renewed.Load()
		if asked == 0 || asked > 130 {
			t.Errorf("asked %d times in an hour", asked)
		}
	})
}

func TestRunWithoutIdentity(t *testing.T) {
	s, err := identity.OpenSource(identity.SourceConfig{})
	must(t, err)
	wantErr(t, s.Run(t.Context(), nil), identity.ErrEmpty, "no identity")
}
