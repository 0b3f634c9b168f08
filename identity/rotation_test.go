package identity_test

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalrun/shoal/identity"
)

// fleetOf is a hub and its nodes, which report what they hold.
type fleetOf struct {
	*realm
	nodes map[identity.ID]*identity.Source
}

func (f fleetOf) held(id identity.ID) (identity.Held, bool) {
	s, ok := f.nodes[id]
	if !ok {
		return identity.Held{}, false
	}
	return s.Held(), true
}

func (f fleetOf) spread() {
	f.t.Helper()
	for _, s := range f.nodes {
		must(f.t, s.SetBundle(f.Bundle()))
	}
}

func newFleet(t *testing.T, c *clock, names ...string) fleetOf {
	r := newRealm(t, c)
	f := fleetOf{r, map[identity.ID]*identity.Source{identity.Hub("shop"): r.hub}}
	for _, n := range names {
		f.nodes[identity.Node("shop", n)] = r.join(n)
	}
	f.spread()
	return f
}

func TestRotationWaitsForEveryone(t *testing.T) {
	c := newClock()
	f := newFleet(t, c, "a", "b")
	rotate := func(to identity.Step) error { _, err := f.Rotate(t.Context(), to, f.held); return err }
	old := f.RotationState()
	token, err := f.Token(t.Context(), "late", 0)
	must(t, err)

	wantErr(t, rotate(identity.Switched), identity.ErrRefused, "the next step is prepared")
	must(t, rotate(identity.Prepared))
	must(t, rotate(identity.Prepared)) // said twice, done once
	if s := f.RotationState(); s.Signer != old.Signer || s.Other == "" || len(f.Bundle().Roots) != 2 {
		t.Errorf("prepared: %+v", s)
	}
	wantErr(t, rotate(identity.Switched), identity.ErrRefused, "has not taken the bundle")
	f.spread()
	wantErr(t, rotate(identity.Switched), identity.ErrRefused, "token for node late")
	late := f.source()
	must(t, late.Obtain(t.Context(), f.joinWith(late, token)))
	wantErr(t, rotate(identity.Switched), identity.ErrRefused, "node/late has not taken the bundle")
	f.nodes[identity.Node("shop", "late")] = late
	during, err := f.Token(t.Context(), "during", 0)
	must(t, err)
	f.reopen()
	must(t, rotate(identity.Switched))
	if s := f.RotationState(); s.Signer == old.Signer || s.Other != old.Signer {
		t.Errorf("switched: %+v", s)
	}

	f.spread()
	wantErr(t, rotate(identity.Steady), identity.ErrRefused, "holds a certificate of the old root")
	must(t, f.hub.Obtain(t.Context(), f.issueHub))
	for id, s := range f.nodes {
		if id.Kind == identity.KindNode {
			must(t, s.Obtain(t.Context(), f.renewOf(s)))
		}
	}
	newcomer := f.source() // with a token that was made before the switch
	must(t, newcomer.Obtain(t.Context(), f.joinWith(newcomer, during)))
	wantErr(t, rotate(identity.Steady), identity.ErrRefused, "node/during holds")
	must(t, f.Revoke(t.Context(), "during"))
	must(t, rotate(identity.Steady))
	f.spread()
	if s := f.RotationState(); s.Other != "" || len(f.Bundle().Roots) != 1 || s.Step != identity.Steady {
		t.Errorf("steady: %+v", s)
	}
	f.reopen()
	a, b := f.nodes[identity.Node("shop", "a")], f.nodes[identity.Node("shop", "b")]
	_, err = shake(a.Client(nil), b.Server(nil))
	must(t, err)
}

// A retired root vouches for nobody, and its key is gone from the store once it has signed its last.
func TestRetiredRootIsNotTrusted(t *testing.T) {
	c := newClock()
	f := newFleet(t, c, "a")
	a := f.nodes[identity.Node("shop", "a")]
	thief := f.join("thief") // a second holder of the old root's signature
	rotate := func(to identity.Step) { t.Helper(); must2(f.Rotate(t.Context(), to, f.held))(t) }
	f.nodes[identity.Node("shop", "thief")] = thief
	key := regexp.MustCompile(`"key":"([^"]+)"`).FindStringSubmatch(f.disk.text())[1]
	rotate(identity.Prepared)
	f.spread()
	if !strings.Contains(f.disk.text(), key) {
		t.Fatal("the key of the root that signs is not in the store")
	}
	rotate(identity.Switched)
	if strings.Contains(f.disk.text(), key) {
		t.Error("the key of the old root is in the store still")
	}
	f.spread()
	must(t, f.hub.Obtain(t.Context(), f.issueHub))
	must(t, a.Obtain(t.Context(), f.renewOf(a)))
	must(t, f.Revoke(t.Context(), "thief"))
	rotate(identity.Steady)
	c.Advance(365 * 24 * time.Hour) // its revocation is listed no more
	must(t, f.hub.Obtain(t.Context(), f.issueHub))
	f.join("b")
	must(t, f.hub.SetBundle(f.Bundle()))
	_, err := shake(thief.ClientForRenewal(), f.doors())
	wantErr(t, err, identity.ErrUntrusted, "not of this fleet")
}

func must2(_ identity.RotationState, err error) func(t *testing.T) {
	return func(t *testing.T) { t.Helper(); must(t, err) }
}

// Connections are made all the time while leaves and roots are replaced, twice over: none fails, and
// one that was open stays open.
func TestRotationDropsNothing(t *testing.T) {
	c := newClock()
	f := newFleet(t, c, "a", "b")
	a, b := f.nodes[identity.Node("shop", "a")], f.nodes[identity.Node("shop", "b")]
	stop, cancel := context.WithCancel(t.Context())
	defer cancel()
	var made atomic.Int64
	var wg sync.WaitGroup
	for _, ends := range [][2]*identity.Source{{a, b}, {b, a}, {a, f.hub}} {
		client, server := ends[0].Client(nil, "h2"), ends[1].Server(nil, "h2") // made once
		wg.Go(func() {
			for stop.Err() == nil {
				if _, err := shake(client, server); err != nil {
					t.Errorf("a connection failed: %v", err)
					return
				}
				made.Add(1)
			}
		})
	}
	more := func() { // let connections meet each state of the rotation
		for target := made.Load() + 6; made.Load() < target && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	renew := func() {
		must(t, f.hub.Obtain(t.Context(), f.issueHub))
		more()
		must(t, a.Obtain(t.Context(), f.renewOf(a)))
		more()
		must(t, b.Obtain(t.Context(), f.renewOf(b)))
		more()
	}
	spread := func() {
		for _, s := range f.nodes {
			must(t, s.SetBundle(f.Bundle()))
			more()
		}
	}
	for range 2 {
		for _, to := range []identity.Step{identity.Prepared, identity.Switched, identity.Steady} {
			must2(f.Rotate(t.Context(), to, f.held))(t)
			more()
			spread()
			renew()
			c.Advance(6 * time.Hour)
		}
	}
	cancel()
	wg.Wait()
	t.Logf("%d connections", made.Load())
}
