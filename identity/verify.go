package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Errors of [Source.Verify] and of the handshakes, by errors.Is.
var (
	// ErrExpired: the peer's certificate is genuine and its time is over; it can renew it.
	ErrExpired = errors.New("certificate has expired")
	// ErrRevoked: the peer's certificate is genuine and was withdrawn.
	ErrRevoked = errors.New("certificate has been revoked")
	// ErrEarly: the peer's certificate is genuine and its time has not begun: a clock is wrong.
	ErrEarly = errors.New("certificate is not valid yet")
	// ErrUntrusted: no root that is trusted now signed the peer's certificate, or not for this.
	ErrUntrusted = errors.New("certificate is not of this fleet")
)

// verify returns whose certificate heads chain: signed by a trusted root, valid at now, of the trust
// domain, not revoked. What else a peer sent is not used: leaves are signed by roots directly.
func (t *trust) verify(chain []*x509.Certificate, now time.Time) (ID, error) {
	if len(chain) == 0 {
		return ID{}, fmt.Errorf("%w: the peer sent none", ErrUntrusted)
	}
	cert := chain[0]
	id, err := t.believe(cert)
	if err != nil {
		return ID{}, err
	}
	if now.After(cert.NotAfter) {
		return ID{}, fmt.Errorf("%s: %w: it ended at %s and it is %s here; its holder renews it, unless one of the two clocks is wrong",
			id, ErrExpired, stamp(cert.NotAfter), stamp(now))
	}
	if now.Before(cert.NotBefore) {
		return ID{}, fmt.Errorf("%s: %w: it begins at %s and it is %s here; set this machine's clock, or the authority's",
			id, ErrEarly, stamp(cert.NotBefore), stamp(now))
	}
	return id, nil
}

// believe returns whose certificate it is, whatever the time, unless it has been revoked.
func (t *trust) believe(cert *x509.Certificate) (ID, error) {
	id, err := t.genuine(cert)
	if err != nil {
		return ID{}, err
	}
	if r, ok := t.revoked[memberOf(cert)]; ok {
		return ID{}, fmt.Errorf("%s: %w: node %s was revoked, or joined anew", id, ErrRevoked, r.Node)
	}
	return id, nil
}

// genuine returns whose certificate it is, whatever the time: signature, key usage, name constraints
// and identity are checked, expiry and revocation are not.
func (t *trust) genuine(cert *x509.Certificate) (ID, error) {
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:       t.pool,
		CurrentTime: cert.NotAfter, // the root outlives each leaf that it signs
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return ID{}, fmt.Errorf("%w %s, by its root: %v", ErrUntrusted, t.bundle.Fleet, err)
	}
	id, err := idOf(cert)
	if err != nil {
		return ID{}, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if cert.IsCA || id.Fleet != t.bundle.Fleet {
		return ID{}, fmt.Errorf("%w: %s is no member of fleet %s", ErrUntrusted, id, t.bundle.Fleet)
	}
	return id, nil
}

// rootOf returns the fingerprint of the root that signed cert; empty when none of the bundle did.
func (t *trust) rootOf(cert *x509.Certificate) string {
	for _, r := range t.roots {
		if cert.CheckSignatureFrom(r) == nil {
			return fingerprint(r)
		}
	}
	return ""
}
