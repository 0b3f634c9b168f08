package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bundle is what a member of a fleet trusts, and whom it does not trust any more. It is a plain value,
// made by the [Authority], spread by the hub over connections that are authenticated already, and
// stored by every [Source].
type Bundle struct {
	Fleet string `json:"fleet"` // trust domain
	// Version grows with every change, by more than one: it is the time of the change in milliseconds
	// wherever that grows, so that an authority restored from a backup overtakes what it forgot.
	Version uint64 `json:"version"`
	// Roots holds certificates in PEM: one, or two while the root is being replaced.
	Roots []string `json:"roots"`
	// Signer is the fingerprint of the root that signs now; who holds a leaf of another renews it.
	Signer  string       `json:"signer"`
	Revoked []Revocation `json:"revoked,omitempty"`
}

// Revocation withdraws all certificates of one membership: those of the node that joined under it,
// and those of services that were issued to that node. It is listed until the last of them has expired.
type Revocation struct {
	Node   string    `json:"node"`
	Member uint32    `json:"member"`
	Until  time.Time `json:"until"` // when the last of them expires, with a margin
}

// Fingerprint identifies the bundle's content: SHA-256 in hexadecimal.
func (b Bundle) Fingerprint() string {
	data, err := json.Marshal(b)
	if err != nil { // strings, numbers and times of this era have no way to fail
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// PEM returns the roots as one text, as other programs take a trust bundle.
func (b Bundle) PEM() string { return strings.Join(b.Roots, "") }

// Certificates returns the roots.
func (b Bundle) Certificates() ([]*x509.Certificate, error) { return decodeChain([]byte(b.PEM())) }

// trust is a bundle, compiled for handshakes. It is immutable.
type trust struct {
	bundle  Bundle
	roots   []*x509.Certificate
	pool    *x509.CertPool
	revoked map[uint32]Revocation
}

// compile checks a bundle.
func compile(b Bundle) (*trust, error) {
	roots, err := b.Certificates()
	if err != nil {
		return nil, fmt.Errorf("the roots of the trust bundle cannot be read: %w", err)
	}
	t := &trust{bundle: b, roots: roots, pool: x509.NewCertPool(), revoked: map[uint32]Revocation{}}
	for _, r := range roots {
		if err := checkRoot(r, b.Fleet); err != nil {
			return nil, err
		}
		t.pool.AddCert(r)
	}
	if !slices.ContainsFunc(roots, func(r *x509.Certificate) bool { return fingerprint(r) == b.Signer }) {
		return nil, errors.New("the trust bundle names a signer that is none of its roots")
	}
	for _, r := range b.Revoked {
		t.revoked[r.Member] = r
	}
	return t, nil
}

func checkRoot(r *x509.Certificate, fleet string) error {
	if !r.IsCA || len(r.URIs) != 1 || r.URIs[0].String() != "spiffe://"+fleet {
		return fmt.Errorf("the trust bundle of fleet %s holds a certificate that is not a root of its: %s", fleet, r.Subject)
	}
	return r.CheckSignatureFrom(r)
}
