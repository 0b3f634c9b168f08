package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// storeKey is the one key of the authority: what changes together is written together.
const storeKey = "identity.authority"

// Store keeps the authority's state durably: when Put returns nil, the value survives a power cut.
// The state holds the private key of the root: whoever reads the store can speak for the whole fleet.
// One authority at a time writes a store.
type Store interface {
	// Get returns the value of key. Where there is none, it returns an error that is
	// [fs.ErrNotExist], or no value and no error.
	Get(ctx context.Context, key string) ([]byte, error)
	// Put sets the value of key.
	Put(ctx context.Context, key string, value []byte) error
}

// state is everything that the authority knows, in the form in which it is stored. A state is never
// changed once it is published: [Authority.change] works on a copy.
type state struct {
	Fleet   string            `json:"fleet"`
	Version uint64            `json:"version"` // of the bundle
	Members uint32            `json:"members"` // memberships ever given
	Step    Step              `json:"step"`
	Since   time.Time         `json:"since"`  // when the step began
	Needed  uint64            `json:"needed"` // the bundle version that began it
	Roots   []root            `json:"roots"`  // in the order of their making; see signing
	Nodes   map[string]member `json:"nodes"`
	Tokens  []joinToken       `json:"tokens"`
	Revoked []Revocation      `json:"revoked"`
}

// root is a root certificate and, until it has signed its last, its key.
type root struct {
	Certificate []byte `json:"certificate"`   // DER
	Key         []byte `json:"key,omitempty"` // PKCS #8
}

// member is a node that has joined.
type member struct {
	Member  uint32    `json:"member"` // its membership; a new one with each join
	Joined  time.Time `json:"joined"`
	Renewed time.Time `json:"renewed"`          // when its newest certificate was issued
	Expires time.Time `json:"expires"`          // the end of the latest certificate of the membership
	Revoked time.Time `json:"revoked,omitzero"` // when it was revoked
}

// load reads the state; nil where none was ever written.
func load(ctx context.Context, store Store) (*state, error) {
	data, err := store.Get(ctx, storeKey)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("identity: reading the certificate authority: %w", err)
	}
	s := &state{}
	if err := json.Unmarshal(data, s); err != nil || len(s.Roots) == 0 {
		return nil, errors.Join(fmt.Errorf("identity: the certificate authority's state (key %s) is damaged: "+
			"restore the hub's data from a backup; without one, delete the key, and let every node join again with a new token", storeKey), err)
	}
	return s, nil
}

// clone returns a copy that may be changed.
func (s *state) clone() *state {
	c := *s
	c.Roots = slices.Clone(s.Roots)
	c.Nodes = maps.Clone(s.Nodes)
	c.Tokens = slices.Clone(s.Tokens)
	c.Revoked = slices.Clone(s.Revoked)
	return &c
}

// remember is for how long a node is listed after its revocation. Forgotten, it is refused all the same.
const remember = 30 * 24 * time.Hour

// forget drops what has lost its meaning with time: tokens that nobody can use, revocations of
// certificates that have all expired, and nodes that were revoked long ago. A node that has merely
// been away is never forgotten.
func (s *state) forget(now time.Time) {
	maps.DeleteFunc(s.Nodes, func(_ string, m member) bool {
		return !m.Revoked.IsZero() && now.After(later(m.Revoked, m.Expires).Add(remember))
	})
	s.Tokens = slices.DeleteFunc(s.Tokens, func(t joinToken) bool { return now.After(t.Expires) })
	listed := len(s.Revoked)
	s.Revoked = slices.DeleteFunc(s.Revoked, func(r Revocation) bool { return now.After(r.Until) })
	if len(s.Revoked) != listed {
		s.touch(now)
	}
}

// touch gives the bundle a new version.
func (s *state) touch(now time.Time) { s.Version = max(s.Version+1, uint64(now.UnixMilli())) }

// signing returns the index of the root that signs: the newest, unless that is only being prepared.
func (s *state) signing() int {
	if s.Step == Prepared {
		return len(s.Roots) - 2
	}
	return len(s.Roots) - 1
}

// bundle returns what the members of the fleet trust in this state.
func (s *state) bundle() (Bundle, error) {
	b := Bundle{Fleet: s.Fleet, Version: s.Version, Revoked: s.Revoked}
	for i, r := range s.Roots {
		cert, err := x509.ParseCertificate(r.Certificate)
		if err != nil {
			return Bundle{}, err
		}
		b.Roots = append(b.Roots, encodeChain(cert))
		if i == s.signing() {
			b.Signer = fingerprint(cert)
		}
	}
	return b, nil
}

// signer returns the root that signs, with its key.
func (s *state) signer() (signer, error) {
	r := s.Roots[s.signing()]
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return signer{}, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(r.Key)
	if err != nil {
		return signer{}, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return signer{}, errors.New("the key of the root does not belong to its certificate")
	}
	return signer{cert, key}, nil
}
