package identity_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/shoalrun/shoal/identity"
)

func TestNodesMeetByMutualTLS(t *testing.T) {
	r := newRealm(t, newClock())
	a, b := r.join("a"), r.join("b")
	seen, err := shake(a.Client(nil, "h2"), b.Server(nil, "h2"))
	must(t, err)
	for end, want := range map[*tls.ConnectionState]string{&seen.client: "spiffe://shop/node/b", &seen.server: "spiffe://shop/node/a"} {
		id, err := identity.PeerID(*end)
		must(t, err)
		if id.String() != want {
			t.Errorf("peer is %s, want %s", id, want)
		}
		if end.Version != tls.VersionTLS13 || end.CurveID != tls.X25519MLKEM768 || end.NegotiatedProtocol != "h2" {
			t.Errorf("version %x, key exchange %s, protocol %q", end.Version, end.CurveID, end.NegotiatedProtocol)
		}
	}
}

func TestSessionsAreNotResumed(t *testing.T) {
	r := newRealm(t, newClock())
	a, b := r.join("a"), r.join("b")
	client := a.Client(nil)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	client.ServerName = "b" // the cache's key
	server := b.Server(nil)
	for range 3 {
		seen, err := shake(client, server)
		must(t, err)
		if seen.client.DidResume {
			t.Fatal("a session was resumed: its ticket could outlive a revocation")
		}
	}
}

func TestHandshakeRefuses(t *testing.T) {
	c := newClock()
	r, other := newRealm(t, c), newRealm(t, c) // two fleets, both called shop
	a, b, stranger := r.join("a"), r.join("b"), other.join("a")
	service := r.source()
	must(t, service.Obtain(t.Context(), func(ctx ctx, csr []byte) (identity.Issued, error) {
		return r.Issue(ctx, identity.Service("shop", "orders"), csr)
	}))
	onlyNodes := func(id identity.ID) error {
		if id.Kind != identity.KindNode {
			return fmt.Errorf("%s is no node", id)
		}
		return nil
	}
	cases := []struct {
		name           string
		client, server *tls.Config
		is             error
		says           string
	}{
		{"a client of another fleet of the same name", stranger.Client(nil), b.Server(nil), identity.ErrUntrusted, "not of this fleet"},
		{"a server of another fleet of the same name", a.Client(nil), stranger.Server(nil), identity.ErrUntrusted, "not of this fleet"},
		{"a service where a node is needed", service.Client(nil), b.Server(onlyNodes), nil, "spiffe://shop/orders is no node"},
		{"a service as a server where a node is needed", a.Client(onlyNodes), service.Server(nil), nil, "spiffe://shop/orders is no node"},
		{"a node where the hub is needed", a.Client(a.WantHub), b.Server(nil), identity.ErrUntrusted, "not the hub"},
		{"a client without a certificate", &tls.Config{InsecureSkipVerify: true}, b.Server(nil), nil, "certificate"},
		{"a client that is not a member yet", r.source().Client(nil), b.Server(nil), identity.ErrEmpty, "no identity"},
		{"TLS 1.2", &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, b.Server(nil), nil, "version"},
		{"another protocol", a.Client(nil, "h3"), b.Server(nil, "h2"), nil, "application protocol"},
		{"no protocol", a.Client(nil), b.Server(nil, "h2"), nil, "none of the protocols"},
		{"no protocol at the hub's port", a.Client(nil), r.doors(), nil, "none of our protocols"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := shake(tc.client, tc.server)
			wantErr(t, err, tc.is, tc.says)
		})
	}
}

func TestExpiredCertificateOpensOneDoor(t *testing.T) {
	c := newClock()
	r := newRealm(t, c)
	a, b := r.join("a"), r.join("b")
	c.Advance(100 * 24 * time.Hour)
	must(t, r.hub.Obtain(t.Context(), r.issueHub))

	_, err := shake(a.Client(nil), b.Server(nil))
	wantErr(t, err, identity.ErrExpired, "expired")
	_, err = shake(a.Client(nil, "h2"), r.doors())
	wantErr(t, err, identity.ErrExpired, "expired")

	seen, err := shake(a.ClientForRenewal(), r.doors())
	must(t, err)
	if _, err := identity.PeerID(seen.server); !errors.Is(err, identity.ErrOnlyRenewal) {
		t.Errorf("an expired certificate is believed: %v", err)
	}
	must(t, a.Obtain(t.Context(), r.renewOf(a)))
	must(t, b.Obtain(t.Context(), r.renewOf(b)))
	_, err = shake(a.Client(nil), b.Server(nil))
	must(t, err)
}

func TestOtherDoorsDoNotRenew(t *testing.T) {
	r := newRealm(t, newClock())
	a := r.join("a")
	seen, err := shake(a.Client(nil, "h2"), r.doors())
	must(t, err)
	if _, err := identity.RenewalPeer(seen.server); err == nil {
		t.Error("an ordinary connection may renew")
	}
	token, err := r.Token(t.Context(), "b", 0)
	must(t, err)
	client, err := r.source().ClientForJoin(token)
	must(t, err)
	seen, err = shake(client, r.doors())
	must(t, err)
	if id, err := identity.PeerID(seen.server); err == nil {
		t.Errorf("a newcomer without a certificate is %s", id)
	}
}

func TestSkewedClocksAreTolerated(t *testing.T) {
	c := newClock()
	r := newRealm(t, c)
	behind := &clock{now: c.Now().Add(-50 * time.Minute)}
	ahead := &clock{now: c.Now().Add(10 * time.Hour)}
	for _, skewed := range []*clock{behind, ahead} {
		token, err := r.Token(t.Context(), fmt.Sprintf("n%d", skewed.Now().Hour()), 0)
		must(t, err)
		s, err := identity.OpenSource(identity.SourceConfig{Now: skewed.Now})
		must(t, err)
		must(t, s.Obtain(t.Context(), r.joinWith(s, token)))
		_, err = shake(s.Client(nil, "h2"), r.doors())
		must(t, err)
	}
	wrong := &clock{now: c.Now().Add(-2 * time.Hour)}
	token, err := r.Token(t.Context(), "wrong", 0)
	must(t, err)
	s, err := identity.OpenSource(identity.SourceConfig{Now: wrong.Now})
	must(t, err)
	err = s.Obtain(t.Context(), r.joinWith(s, token))
	wantErr(t, err, identity.ErrEarly, "set this machine's clock")
}
