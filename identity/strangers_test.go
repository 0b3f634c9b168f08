package identity_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/shoalrun/shoal/identity"
)

// kept is a node whose files a stranger reads, in real time, which strangers live in.
type kept struct {
	*realm
	node     *identity.Source
	identity string // path of identity.pem
	roots    string // path of the bundle as PEM
}

func keep(t *testing.T) kept {
	t.Helper()
	r := newRealm(t, &clock{now: time.Now()})
	dir := t.TempDir()
	s, err := identity.OpenSource(identity.SourceConfig{Dir: dir, Now: r.clock.Now})
	must(t, err)
	token, err := r.Token(t.Context(), "a", 0)
	must(t, err)
	must(t, s.Obtain(t.Context(), r.joinWith(s, token)))
	roots := filepath.Join(dir, "roots.pem")
	must(t, os.WriteFile(roots, []byte(r.Bundle().PEM()), 0o600))
	return kept{r, s, filepath.Join(dir, "identity.pem"), roots}
}

func (k kept) read(t *testing.T) []byte {
	data, err := os.ReadFile(k.identity)
	must(t, err)
	return data
}

func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl: apt-get install openssl")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader("hello\n")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestOpenSSLVerifies(t *testing.T) {
	k, other := keep(t), keep(t)
	for _, purpose := range []string{"sslserver", "sslclient"} {
		out, err := openssl(t, "verify", "-x509_strict", "-purpose", purpose, "-CAfile", k.roots, k.identity)
		if err != nil || !strings.Contains(out, "OK") {
			t.Errorf("openssl verify: %v\n%s", err, out)
		}
	}
	if out, err := openssl(t, "verify", "-CAfile", other.roots, k.identity); err == nil {
		t.Errorf("openssl believes another fleet of the same name:\n%s", out)
	}
	out, err := openssl(t, "x509", "-in", k.roots, "-noout", "-text")
	must(t, err)
	for _, want := range []string{"Name Constraints: critical", "URI:shop", "CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign"} {
		if !strings.Contains(out, want) {
			t.Errorf("the root has no %q:\n%s", want, out)
		}
	}
	out, err = openssl(t, "x509", "-in", k.identity, "-noout", "-text")
	must(t, err)
	for _, want := range []string{"URI:spiffe://shop/node/a", "X509v3 Key Usage: critical", "Subject Alternative Name: critical", "CA:FALSE"} {
		if !strings.Contains(out, want) {
			t.Errorf("the leaf has no %q:\n%s", want, out)
		}
	}
}

// A TLS stack that is not Go's meets our server, and both believe each other.
func TestOpenSSLShakesHands(t *testing.T) {
	k := keep(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", k.hub.Server(nil, "h2"))
	must(t, err)
	type met struct {
		id   identity.ID
		said string
		err  error
	}
	seen := make(chan met, 1)
	go func() {
		var m met
		c, err := l.Accept()
		if err != nil {
			seen <- met{err: err}
			return
		}
		defer c.Close()
		said := make([]byte, 5)
		_, m.err = c.Read(said)
		if m.err == nil {
			m.id, m.err = identity.PeerID(c.(*tls.Conn).ConnectionState())
		}
		m.said = string(said)
		seen <- m
	}()
	out, err := openssl(t, "s_client", "-connect", l.Addr().String(), "-cert", k.identity, "-key", k.identity,
		"-CAfile", k.roots, "-verify_return_error", "-alpn", "h2", "-tls1_3", "-quiet")
	l.Close() // should it never have come
	m := <-seen
	if err != nil || m.err != nil || m.id != identity.Node("shop", "a") || m.said != "hello" {
		t.Errorf("openssl came as %s and said %q: %v %v\n%s", m.id, m.said, m.err, err, out)
	}
}

func TestGoSPIFFEReadsWhatIsIssued(t *testing.T) {
	k := keep(t)
	svid, err := x509svid.Parse(k.read(t), k.read(t))
	must(t, err)
	domain := spiffeid.RequireTrustDomainFromString("shop")
	bundle, err := x509bundle.Parse(domain, []byte(k.Bundle().PEM()))
	must(t, err)
	id, _, err := x509svid.Verify(svid.Certificates, bundle)
	must(t, err)
	if id.String() != k.node.ID().String() || svid.ID != id {
		t.Errorf("go-spiffe reads %s, we %s", id, k.node.ID())
	}
	for _, want := range []identity.ID{identity.Hub("shop"), identity.Service("shop", "orders"), identity.Node("shop", "web-1.example.com")} {
		if _, err := spiffeid.FromString(want.String()); err != nil {
			t.Errorf("go-spiffe does not take %s: %v", want, err)
		}
	}
}

// An application with go-spiffe's own TLS configuration and a node of ours meet, in both directions.
func TestGoSPIFFEShakesHands(t *testing.T) {
	k := keep(t)
	svid, err := x509svid.Parse(k.read(t), k.read(t))
	must(t, err)
	domain := spiffeid.RequireTrustDomainFromString("shop")
	bundle, err := x509bundle.Parse(domain, []byte(k.Bundle().PEM()))
	must(t, err)
	member := tlsconfig.AuthorizeMemberOf(domain)
	_, err = shake(tlsconfig.MTLSClientConfig(svid, bundle, member), k.hub.Server(nil))
	must(t, err)
	_, err = shake(k.node.Client(nil), tlsconfig.MTLSServerConfig(svid, bundle, member))
	must(t, err)
}

func TestBundleTellsItsContent(t *testing.T) {
	r := newRealm(t, newClock())
	before := r.Bundle()
	r.join("a")
	if r.Bundle().Fingerprint() != before.Fingerprint() {
		t.Error("a join changed the bundle")
	}
	must(t, r.Revoke(t.Context(), "a"))
	if r.Bundle().Fingerprint() == before.Fingerprint() {
		t.Error("a revocation did not change the bundle's fingerprint")
	}
	if roots, err := before.Certificates(); err != nil || len(roots) != 1 || !bytes.Equal(roots[0].Raw, certificates(t, before.PEM())[0].Raw) {
		t.Errorf("roots: %d, %v", len(roots), err)
	}
}
