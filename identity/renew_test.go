package identity_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/identity"
)

var errStore = errors.New("no space left on device")

func TestRenewalGivesANewKeyAndKeepsTheMembership(t *testing.T) {
	c := newClock()
	r := newRealm(t, c)
	a := r.join("a")
	before := a.Leaf()
	c.Advance(12 * time.Hour)
	must(t, a.Obtain(t.Context(), r.renewOf(a)))
	if !a.Expiry().After(before.NotAfter) || string(a.Leaf().RawSubjectPublicKeyInfo) == string(before.RawSubjectPublicKeyInfo) {
		t.Error("the renewed certificate has the old end, or the old key")
	}
	must(t, r.Revoke(t.Context(), "a"))
	must(t, r.hub.SetBundle(r.Bundle()))
	_, err := shake(a.Client(nil, "h2"), r.doors())
	wantErr(t, err, identity.ErrRevoked, "node a was revoked")
}

// Renewing takes a certificate whose key the peer holds: one that was merely seen is not enough, and
// neither is one of another fleet, of a service, or of a membership that has ended.
func TestRenewRefuses(t *testing.T) {
	c := newClock()
	r, other := newRealm(t, c), newRealm(t, c)
	a, stranger := r.join("a"), other.join("a")
	service := r.source()
	must(t, service.Obtain(t.Context(), func(ctx ctx, csr []byte) (identity.Issued, error) {
		return r.Issue(ctx, identity.Service("shop", "orders"), csr)
	}))
	err := stranger.Obtain(t.Context(), r.renewOf(stranger))
	wantErr(t, err, identity.ErrUntrusted, "not of this fleet")
	err = service.Obtain(t.Context(), r.renewOf(service))
	wantErr(t, err, identity.ErrUntrusted, "is no node")

	thief := stranger.ClientForRenewal()
	thief.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		own, err := stranger.ClientForRenewal().GetClientCertificate(nil)
		return &tls.Certificate{Certificate: [][]byte{a.Leaf().Raw}, PrivateKey: own.PrivateKey}, err
	}
	if _, err := shake(thief, r.doors()); err == nil {
		t.Error("a certificate was accepted without its key")
	}
	_, err = r.Renew(t.Context(), nil, csr(t))
	wantErr(t, err, identity.ErrRefused, "no certificate")
}

func TestRevokedNode(t *testing.T) {
	c := newClock()
	r := newRealm(t, c)
	a, b := r.join("a"), r.join("b")
	open, err := shake(a.Client(nil), b.Server(nil))
	must(t, err)
	spare, err := r.RejoinToken(t.Context(), "a", 0)
	must(t, err)

	changed, told := r.Changed(), b.Changed()
	must(t, r.Revoke(t.Context(), "a"))
	<-changed
	if b.Revoked(open.server) {
		t.Error("revoked before the bundle came")
	}
	must(t, b.SetBundle(r.Bundle()))
	must(t, r.hub.SetBundle(r.Bundle()))
	<-told
	if !b.Revoked(open.server) || a.Revoked(open.client) {
		t.Error("the connection with a revoked node is not to be closed, or another one is")
	}
	_, err = shake(a.Client(nil), b.Server(nil))
	wantErr(t, err, identity.ErrRevoked, "revoked")
	_, err = shake(b.Client(nil), a.Server(nil))
	wantErr(t, err, identity.ErrRevoked, "revoked")
	err = a.Obtain(t.Context(), r.renewOf(a))
	wantErr(t, err, identity.ErrRevoked, "revoked")
	_, err = r.Join(t.Context(), spare, csr(t))
	wantErr(t, err, identity.ErrRefused, "withdrawn")
	must(t, r.Revoke(t.Context(), "a"))

	r.reopen()
	for _, wait := range []time.Duration{0, 400 * 24 * time.Hour} { // also once the listing is gone
		c.Advance(wait)
		_, err = r.Renew(t.Context(), open.server.PeerCertificates, csr(t))
		wantErr(t, err, identity.ErrRevoked, "needs a new join token")
	}
	must(t, r.hub.Obtain(t.Context(), r.issueHub))
	back := r.join("a")
	_, err = shake(back.Client(nil, "h2"), r.doors())
	must(t, err)
	must(t, r.Revoke(t.Context(), "a"))
	c.Advance(400 * 24 * time.Hour)
	must(t, r.hub.Obtain(t.Context(), r.issueHub))
	r.join("d")
	if n := r.Nodes(t.Context()); len(n) != 2 { // b has been away for as long, and is known
		t.Errorf("nodes are %v", n)
	}
	err = r.Revoke(t.Context(), "nobody")
	wantErr(t, err, identity.ErrRefused, "no node of that name")
}

func TestRevocationsAreListedUntilTheirCertificatesEnd(t *testing.T) {
	c := newClock()
	r := newRealm(t, c)
	for i := range 5 {
		name := fmt.Sprintf("n%d", i)
		r.join(name)
		must(t, r.Revoke(t.Context(), name))
	}
	if n := len(r.Bundle().Revoked); n != 5 {
		t.Errorf("%d revocations are listed, want 5", n)
	}
	version := r.Bundle().Version
	c.Advance(3 * 24 * time.Hour)
	must(t, r.hub.Obtain(t.Context(), r.issueHub))
	r.join("another")
	if n := len(r.Bundle().Revoked); n != 0 || r.Bundle().Version <= version {
		t.Errorf("%d revocations are listed of certificates that have ended; version %d after %d", n, r.Bundle().Version, version)
	}
}

func TestNodes(t *testing.T) {
	c := newClock()
	r := newRealm(t, c)
	r.join("a")
	r.join("b")
	must(t, r.Revoke(t.Context(), "b"))
	c.Advance(48 * time.Hour)
	must(t, r.hub.Obtain(t.Context(), r.issueHub))
	last := r.join("c")
	r.reopen()
	var got []string
	for _, n := range r.Nodes(t.Context()) {
		got = append(got, fmt.Sprint(n.Node, " ", n.State))
		if n.Node == "c" && !n.Expires.Equal(last.Expiry()) {
			t.Errorf("c expires at %s, want %s", n.Expires, last.Expiry())
		}
	}
	if want := "[a expired b revoked c valid]"; fmt.Sprint(got) != want {
		t.Errorf("nodes are %v, want %s", got, want)
	}
}

// Whatever the store does, what was refused can be tried again, and a restart agrees.
func TestStoreFailures(t *testing.T) {
	for name, fail := range map[string]func(d *disk){
		"nothing written": func(d *disk) { d.fail(errStore, nil) },
		"answer lost":     func(d *disk) { d.fail(nil, errStore) },
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s restart %v", name, restart), func(t *testing.T) {
				r := newRealm(t, newClock())
				broken := func(do func() error) {
					t.Helper()
					fail(r.disk)
					err := do()
					wantErr(t, err, errStore, "nothing has changed")
					r.disk.fail(nil, nil)
					if errors.Is(err, identity.ErrRefused) {
						t.Errorf("a failure that passes reads as a refusal: %v", err)
					}
					if restart {
						r.reopen()
					}
				}
				makeToken := func() (string, error) { return r.Token(t.Context(), "a", 0) }
				broken(func() error { _, err := makeToken(); return err })
				token, err := makeToken()
				must(t, err)
				key, request, err := identity.NewKey()
				must(t, err)
				join := func() (identity.Issued, error) { return r.Join(t.Context(), token, request) }
				broken(func() error { _, err := join(); return err })
				issued, err := join()
				must(t, err)
				a := r.source()
				must(t, a.Set(key, issued))
				broken(func() error { return a.Obtain(t.Context(), r.renewOf(a)) })
				must(t, a.Obtain(t.Context(), r.renewOf(a)))
				version := r.Bundle().Version
				broken(func() error { return r.Revoke(t.Context(), "a") })
				if !restart && (r.Bundle().Version != version || r.Nodes(t.Context())[0].State != identity.NodeValid) {
					t.Error("a revocation that failed is in force")
				}
				must(t, r.Revoke(t.Context(), "a"))
				if len(r.Bundle().Revoked) != 1 {
					t.Errorf("listed: %v", r.Bundle().Revoked)
				}
			})
		}
	}
}

// No leaf outlives its root, and the end of a root is announced.
func TestRootEnds(t *testing.T) {
	c, d := newClock(), &disk{}
	var log strings.Builder
	open := func() *identity.Authority {
		t.Helper()
		a, err := identity.New(t.Context(), identity.Config{Fleet: "shop", Store: d, Now: c.Now, RootTTL: 100 * time.Hour, Log: slog.New(slog.NewTextHandler(&log, nil))})
		must(t, err)
		return a
	}
	a := open()
	c.Advance(90 * time.Hour)
	issued, err := a.Issue(t.Context(), identity.Hub("shop"), csr(t))
	must(t, err)
	if certs := certificates(t, issued.Chain); !certs[0].NotAfter.Equal(certs[1].NotAfter) {
		t.Errorf("the leaf ends at %s, its root at %s", certs[0].NotAfter, certs[1].NotAfter)
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", &log)
	}
	a = open()
	if !strings.Contains(log.String(), "must be replaced before it expires") {
		t.Errorf("the root's end is not announced: %q", &log)
	}
	c.Advance(11 * time.Hour)
	_, err = a.Issue(t.Context(), identity.Hub("shop"), csr(t))
	wantErr(t, err, nil, "rotate the root")
}

func TestAuthorityThatCannotBeOpened(t *testing.T) {
	r := newRealm(t, newClock())
	open := func(fleet string, d *disk) error {
		_, err := identity.New(t.Context(), identity.Config{Fleet: fleet, Store: d, Now: r.clock.Now})
		return err
	}
	wantErr(t, open("store", r.disk), nil, "fleet keeps its name")
	wantErr(t, open("Shop!", &disk{}), nil, "lower-case")
	full := &disk{before: errStore}
	wantErr(t, open("shop", full), errStore, "nothing has changed")
	whole := r.disk.text()
	for _, cut := range []string{whole[:len(whole)/2], "{}", "null"} {
		d := &disk{values: map[string][]byte{"identity.authority": []byte(cut)}}
		wantErr(t, open("shop", d), nil, "restore the hub's data from a backup")
		if d.puts != 0 {
			t.Error("a damaged authority was replaced")
		}
	}
}
