package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/identity"
)

type ctx = context.Context

func TestTokenIsOneWord(t *testing.T) {
	r := newRealm(t, newClock())
	token, err := r.Token(t.Context(), "a", 0)
	must(t, err)
	if !regexp.MustCompile(`^\w+$`).MatchString(token) {
		t.Errorf("%q is not one word", token)
	}
	stored := r.disk.text()
	for i := 0; i+20 < len(token); i++ {
		if strings.Contains(stored, token[i:i+20]) {
			t.Fatal("the store holds a part of the token")
		}
	}
}

func TestTokenAdmitsOnce(t *testing.T) {
	r := newRealm(t, newClock())
	token, err := r.Token(t.Context(), "a", 0)
	must(t, err)
	mine := csr(t)
	first, err := r.Join(t.Context(), "  "+strings.ToUpper(token)+"\n", mine)
	must(t, err)
	again, err := r.Join(t.Context(), token, mine) // the answer was lost
	must(t, err)
	if a, b := certificates(t, first.Chain)[0], certificates(t, again.Chain)[0]; !a.PublicKey.(*ecdsa.PublicKey).Equal(b.PublicKey) {
		t.Error("the second answer is for another key")
	}
	_, err = r.Join(t.Context(), token, csr(t))
	wantErr(t, err, identity.ErrRefused, "has been used")
	r.reopen()
	_, err = r.Join(t.Context(), token, csr(t))
	wantErr(t, err, identity.ErrRefused, "has been used")
}

func TestTokenIsSpentByOneOfMany(t *testing.T) {
	r := newRealm(t, newClock())
	token, err := r.Token(t.Context(), "a", 0)
	must(t, err)
	var wg sync.WaitGroup
	outcomes := make(chan error, 20)
	for range cap(outcomes) {
		request := csr(t)
		wg.Go(func() {
			_, err := r.Join(t.Context(), token, request)
			outcomes <- err
		})
	}
	wg.Wait()
	close(outcomes)
	admitted := 0
	for err := range outcomes {
		if err == nil {
			admitted++
		}
	}
	if admitted != 1 {
		t.Errorf("%d joined with one token", admitted)
	}
}

func TestTokenExpires(t *testing.T) {
	c := newClock()
	r := newRealm(t, c)
	token, err := r.Token(t.Context(), "a", 10*time.Minute)
	must(t, err)
	c.Advance(11 * time.Minute)
	_, err = r.Join(t.Context(), token, csr(t))
	wantErr(t, err, identity.ErrRefused, "expired")
}

func TestTokenTampered(t *testing.T) {
	r := newRealm(t, newClock())
	token, err := r.Token(t.Context(), "a", 0)
	must(t, err)
	for i := range token {
		changed := []byte(token)
		changed[i] = 'a'
		if string(changed) == token {
			changed[i] = 'b'
		}
		_, err := r.Join(t.Context(), string(changed), csr(t))
		wantErr(t, err, identity.ErrRefused, "no join token")
		_, err = r.source().ClientForJoin(string(changed))
		wantErr(t, err, nil, "no join token")
	}
	for _, text := range []string{"", "shoaljoin_", token[:len(token)-1], token + "a", strings.Repeat(token, 9), "shoaljoin_7", "shoaljoin_77777777"} {
		_, err := r.Join(t.Context(), text, csr(t))
		wantErr(t, err, identity.ErrRefused, "no join token")
	}
}

func TestTokenOfAnotherFleetBelievesNoHub(t *testing.T) {
	c := newClock()
	r, other := newRealm(t, c), newRealm(t, c)
	token, err := other.Token(t.Context(), "a", 0)
	must(t, err)
	s := r.source()
	err = s.Obtain(t.Context(), r.joinWith(s, token))
	wantErr(t, err, identity.ErrUntrusted, "another fleet")
	_, err = r.Join(t.Context(), token, csr(t))
	wantErr(t, err, identity.ErrRefused, "unknown")
}

// A member that is not the hub has the root too, and must not pass for the hub.
func TestNewcomerBelievesTheHubAlone(t *testing.T) {
	r := newRealm(t, newClock())
	a := r.join("a")
	token, err := r.Token(t.Context(), "b", 0)
	must(t, err)
	client, err := r.source().ClientForJoin(token)
	must(t, err)
	_, err = shake(client, a.ServerForJoin())
	wantErr(t, err, identity.ErrUntrusted, "not the hub")
}

func TestNameIsTakenOnce(t *testing.T) {
	c := newClock()
	r := newRealm(t, c)
	early, err := r.Token(t.Context(), "a", 0) // two tokens for one name
	must(t, err)
	old := r.join("a")
	_, err = r.Token(t.Context(), "a", 0)
	wantErr(t, err, identity.ErrRefused, "joined already")
	_, err = r.Join(t.Context(), early, csr(t))
	wantErr(t, err, identity.ErrRefused, "joined already")

	token, err := r.RejoinToken(t.Context(), "a", 0)
	must(t, err)
	fresh := r.source()
	must(t, fresh.Obtain(t.Context(), r.joinWith(fresh, token)))
	must(t, r.hub.SetBundle(r.Bundle()))
	_, err = shake(old.Client(nil, "h2"), r.doors())
	wantErr(t, err, identity.ErrRevoked, "revoked")
	_, err = shake(fresh.Client(nil, "h2"), r.doors())
	must(t, err)
	_, err = r.Renew(t.Context(), certificatesOf(old), csr(t))
	wantErr(t, err, identity.ErrRevoked, "joined anew")
}

// An old machine must not slip into the membership of its successor with the token that it once spent.
func TestSpentTokenDoesNotFollowItsName(t *testing.T) {
	r := newRealm(t, newClock())
	token, err := r.Token(t.Context(), "a", 0)
	must(t, err)
	request := csr(t)
	_, err = r.Join(t.Context(), token, request)
	must(t, err)
	second, err := r.RejoinToken(t.Context(), "a", 0)
	must(t, err)
	_, err = r.Join(t.Context(), second, csr(t))
	must(t, err)
	_, err = r.Join(t.Context(), token, request)
	wantErr(t, err, identity.ErrRefused, "has been used")
}

func TestRequestGivesItsKeyAndNothingElse(t *testing.T) {
	r := newRealm(t, newClock())
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	hub, err := url.Parse("spiffe://shop/hub")
	must(t, err)
	greedy, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "hub"}, URIs: []*url.URL{hub}, DNSNames: []string{"example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}, // CA: true
	}, key)
	must(t, err)
	token, err := r.Token(t.Context(), "a", 0)
	must(t, err)
	issued, err := r.Join(t.Context(), token, greedy)
	must(t, err)
	leaf := certificates(t, issued.Chain)[0]
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.DNSNames)+len(leaf.IPAddresses) > 0 ||
		leaf.Subject.String() != "" || len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://shop/node/a" {
		t.Errorf("the request decided about its certificate: %s %v %v CA %v", leaf.Subject, leaf.URIs, leaf.DNSNames, leaf.IsCA)
	}
}

func TestMalformedRequests(t *testing.T) {
	r := newRealm(t, newClock())
	good := csr(t)
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1 // the signature's end
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	otherKind, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	must(t, err)
	cases := map[string]struct {
		csr  []byte
		says string
	}{
		"nothing":      {nil, "PKCS #10"},
		"text":         {[]byte("-----BEGIN CERTIFICATE REQUEST-----"), "PKCS #10"},
		"cut off":      {good[:len(good)-5], "PKCS #10"},
		"forged":       {forged, "not signed with its own key"},
		"RSA":          {otherKind, "ECDSA P-256"},
		"a large file": {make([]byte, 1<<20), "bytes"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := r.Issue(t.Context(), identity.Hub("shop"), tc.csr)
			wantErr(t, err, identity.ErrRefused, tc.says)
			token, err := r.RejoinToken(t.Context(), "a", 0)
			must(t, err)
			_, err = r.Join(t.Context(), token, tc.csr)
			wantErr(t, err, identity.ErrRefused, tc.says)
			_, err = r.Join(t.Context(), token, good)
			must(t, err) // a request that cannot be read spends nothing
		})
	}
}

func TestIssueRefusesWhatIsNotTheHubsToGive(t *testing.T) {
	r := newRealm(t, newClock())
	r.join("a")
	for id, says := range map[identity.ID]string{
		identity.Node("shop", "a"):           "Join and Renew",
		identity.Hub("store"):                "another fleet",
		identity.Service("shop", "hub"):      "reserved",
		identity.Service("shop", "a/b"):      "DNS label",
		identity.Service("shop", "node/a"):   "DNS label",
		{Fleet: "shop", Kind: "", Name: "x"}: "no kind",
	} {
		_, err := r.Issue(t.Context(), id, csr(t))
		wantErr(t, err, identity.ErrRefused, says)
	}
}

// Whatever a stranger sends in place of a token is refused, and nothing breaks.
func FuzzToken(f *testing.F) {
	a, err := identity.New(f.Context(), identity.Config{Fleet: "shop", Store: &disk{}})
	if err != nil {
		f.Fatal(err)
	}
	token, err := a.Token(f.Context(), "a", 0)
	if err != nil {
		f.Fatal(err)
	}
	_, csr, err := identity.NewKey()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", token[:20], token + token, "shoaljoin_aaaaaaaa", "shoaljoin_" + strings.Repeat("7", 72)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.EqualFold(strings.TrimSpace(text), token) {
			t.Skip("the token itself")
		}
		if _, err := a.Join(t.Context(), text, csr); !errors.Is(err, identity.ErrRefused) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
