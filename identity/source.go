package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// ErrEmpty: the process has no identity yet: it has not joined.
var ErrEmpty = errors.New("this process has no identity yet")

// Obtain asks an authority for a certificate for the key of csr, a PKCS #10 request in DER: a call to
// the hub, or [Authority.Issue] itself.
type Obtain func(ctx context.Context, csr []byte) (Issued, error)

// SourceConfig configures a [Source].
type SourceConfig struct {
	// Dir is the directory in which key, chain and bundle are kept; it is made where it is missing.
	// Empty: memory only.
	Dir string
	// Now tells the time. nil: time.Now.
	Now func() time.Time
	// Log gets a line for every renewal, and for its failures. nil: none.
	Log *slog.Logger
}

// Source is what one process holds: its key, its certificate and the bundle that it trusts. The three
// are swapped as one; every tls.Config that it made reads them at each handshake. Make one with
// [OpenSource]; all methods are safe for concurrent use.
type Source struct {
	config  SourceConfig
	mu      sync.Mutex // held while held is replaced
	held    atomic.Pointer[held]
	changed signal
}

// held is one generation of a source. It is immutable.
type held struct {
	id    ID
	key   *ecdsa.PrivateKey
	chain []*x509.Certificate // leaf, then its root
	cert  tls.Certificate     // the same, as crypto/tls takes it
	root  string              // fingerprint of the leaf's root
	trust *trust
}

// OpenSource returns a source with what its directory holds: nothing in a fresh one ([Source.Empty]).
// Files that are damaged are an error that says what to do; they are never replaced silently.
func OpenSource(c SourceConfig) (*Source, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Source{config: c}
	if c.Dir == "" {
		return s, nil
	}
	h, err := readDir(c.Dir)
	if err != nil {
		return nil, err
	}
	if h != nil {
		s.held.Store(h)
	}
	return s, nil
}

// newHeld checks that key, chain and bundle belong together. Expiry is not looked at: what has
// expired renews itself.
func newHeld(key *ecdsa.PrivateKey, chain []*x509.Certificate, b Bundle) (*held, error) {
	t, err := compile(b)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(chain[0].PublicKey) {
		return nil, errors.New("the certificate is for another key")
	}
	h := &held{key: key, chain: chain, trust: t}
	if h.id, err = idOf(chain[0]); err != nil {
		return nil, err
	}
	h.root = t.rootOf(chain[0])
	h.cert = tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		h.cert.Certificate = append(h.cert.Certificate, c.Raw)
	}
	return h, nil
}

// NewKey makes a key and a certificate request for it, which asks for nothing: names are the
// authority's.
func NewKey() (key *ecdsa.PrivateKey, csr []byte, err error) {
	if key, err = newKey(); err != nil {
		return nil, nil, err
	}
	csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return key, csr, err
}

// Obtain makes a new key, has it certified and takes the answer into use: for a join, for the hub's
// first certificate, and for each renewal.
func (s *Source) Obtain(ctx context.Context, obtain Obtain) error {
	key, csr, err := NewKey()
	if err != nil {
		return err
	}
	issued, err := obtain(ctx, csr)
	if err != nil {
		return err
	}
	return s.Set(key, issued)
}

// Set takes what was issued for key into use, for every handshake from now on: on disk first, where
// there is a Dir. The certificate must be valid now, by the bundle that came with it. An older bundle
// than the one in force does not replace it.
func (s *Source) Set(key *ecdsa.PrivateKey, issued Issued) error {
	chain, err := decodeChain([]byte(issued.Chain))
	if err != nil {
		return fmt.Errorf("the certificate that was issued cannot be read: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := newHeld(key, chain, s.newer(issued.Bundle))
	if err != nil {
		return fmt.Errorf("the certificate that was issued cannot be used: %w", err)
	}
	if err := s.sameFleet(next.id.Fleet); err != nil {
		return err
	}
	if _, err := next.trust.verify(chain, s.config.Now()); err != nil {
		return fmt.Errorf("the certificate that was issued cannot be used: %w", err)
	}
	return s.replaceLocked(next)
}

// SetBundle takes a bundle into use that came from the hub over a connection of this source's. An
// older one than that in force is ignored.
func (s *Source) SetBundle(b Bundle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held.Load()
	if h == nil {
		return ErrEmpty
	}
	if err := s.sameFleet(b.Fleet); err != nil {
		return err
	}
	if b.Version <= h.trust.bundle.Version {
		return nil
	}
	next, err := newHeld(h.key, h.chain, b)
	if err != nil {
		return err
	}
	return s.replaceLocked(next)
}

// newer returns the newer of b and the bundle in force.
func (s *Source) newer(b Bundle) Bundle {
	if h := s.held.Load(); h != nil && h.trust.bundle.Fleet == b.Fleet && h.trust.bundle.Version > b.Version {
		return h.trust.bundle
	}
	return b
}

func (s *Source) sameFleet(fleet string) error {
	if h := s.held.Load(); h != nil && h.id.Fleet != fleet {
		return fmt.Errorf("this process is %s and cannot become a member of fleet %s: give it a data folder of its own", h.id, fleet)
	}
	return nil
}

func (s *Source) replaceLocked(next *held) error {
	if s.config.Dir != "" {
		if err := next.writeDir(s.config.Dir); err != nil {
			return err
		}
	}
	s.held.Store(next)
	s.changed.send()
	return nil
}

// Empty tells whether the source has no identity yet.
func (s *Source) Empty() bool { return s.held.Load() == nil }

// ID returns whose identity the source holds; the zero ID when it is empty.
func (s *Source) ID() ID {
	if h := s.held.Load(); h != nil {
		return h.id
	}
	return ID{}
}

// Leaf returns the certificate in force; nil when the source is empty.
func (s *Source) Leaf() *x509.Certificate {
	if h := s.held.Load(); h != nil {
		return h.chain[0]
	}
	return nil
}

// Expiry returns when the certificate in force ends; the zero time when the source is empty.
func (s *Source) Expiry() time.Time {
	if h := s.held.Load(); h != nil {
		return h.chain[0].NotAfter
	}
	return time.Time{}
}

// Bundle returns what the source trusts; the zero Bundle when it is empty.
func (s *Source) Bundle() Bundle {
	if h := s.held.Load(); h != nil {
		return h.trust.bundle
	}
	return Bundle{}
}

// Held returns what [Authority.Rotate] asks of a member.
func (s *Source) Held() Held {
	h := s.held.Load()
	if h == nil {
		return Held{}
	}
	return Held{Bundle: h.trust.bundle.Version, Signer: h.root, Expires: h.chain[0].NotAfter}
}

// Changed returns a channel that is closed when certificate or bundle are replaced next. Get it
// before reading the source.
func (s *Source) Changed() <-chan struct{} { return s.changed.next() }
