package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// Defaults of [Config].
const (
	DefaultLeafTTL = 24 * time.Hour
	DefaultRootTTL = 10 * 365 * 24 * time.Hour
)

// ErrRefused marks a refusal that asking again does not change: a token that is spent, a node that is
// revoked, a malformed request. Any other error (the store's) may pass.
var ErrRefused = errors.New("refused")

// Config configures an [Authority].
type Config struct {
	Fleet string // the fleet's name, which is the trust domain; required
	Store Store  // required
	// Now tells the time. nil: time.Now.
	Now func() time.Time
	// LeafTTL is the life of a certificate. 0: [DefaultLeafTTL]. Renewal begins before its half.
	LeafTTL time.Duration
	// RootTTL is the life of a root. 0: [DefaultRootTTL]. No leaf outlives its root.
	RootTTL time.Duration
	// Log gets a line for every join, revocation and step of a rotation. nil: none.
	Log *slog.Logger
}

// Authority is a fleet's certificate authority. Make one with [New]; all methods are safe for
// concurrent use. Each change is stored before its method returns and before anything acts on it.
type Authority struct {
	config  Config
	lock    chan struct{} // holds one token while a change is made; a channel, so that waiting obeys ctx
	live    atomic.Pointer[published]
	changed signal
}

// published is a state that is stored, with what is made of it.
type published struct {
	state  *state // never changed
	bundle Bundle
	trust  *trust
	signer signer
}

// Issued is what a member receives: a certificate for the key of its request, and whom to trust.
type Issued struct {
	// Chain is PEM: the leaf, then the root that signed it, by which a joining node knows its fleet.
	Chain  string `json:"chain"`
	Bundle Bundle `json:"bundle"`
}

// New opens the authority that the store holds, or makes one, with its root, where there is none.
func New(ctx context.Context, c Config) (*Authority, error) {
	if c.Store == nil {
		return nil, errors.New("identity: Config needs a Store")
	}
	if err := Hub(c.Fleet).Check(); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	a := &Authority{config: c.withDefaults(), lock: make(chan struct{}, 1)}
	stored, err := load(ctx, c.Store)
	if err != nil {
		return nil, err
	}
	if stored == nil {
		if err := a.found(ctx); err != nil {
			return nil, fmt.Errorf("identity: making the certificate authority of fleet %s: %w", c.Fleet, err)
		}
		return a, nil
	}
	if stored.Fleet != c.Fleet {
		return nil, fmt.Errorf("identity: the store holds the authority of fleet %s, not of %s: a fleet keeps its name, "+
			"because every certificate carries it; name it %s again, or start %s with a data folder of its own", stored.Fleet, c.Fleet, stored.Fleet, c.Fleet)
	}
	p, err := prepare(stored)
	if err != nil {
		return nil, fmt.Errorf("identity: the stored certificate authority cannot be used; restore the hub's data from a backup: %w", err)
	}
	a.live.Store(p)
	a.warnOfExpiry()
	return a, nil
}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.LeafTTL == 0 {
		c.LeafTTL = DefaultLeafTTL
	}
	if c.RootTTL == 0 {
		c.RootTTL = DefaultRootTTL
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// found makes the first root.
func (a *Authority) found(ctx context.Context) error {
	now := a.config.Now()
	r, err := newRoot(a.config.Fleet, now, a.config.RootTTL)
	if err != nil {
		return err
	}
	s := &state{Fleet: a.config.Fleet, Step: Steady, Since: now, Roots: []root{r}, Nodes: map[string]member{}}
	s.touch(now)
	return a.commit(ctx, s)
}

// Bundle returns what the fleet trusts now.
func (a *Authority) Bundle() Bundle { return a.live.Load().bundle }

// Changed returns a channel that is closed when the bundle changes next. Get it before [Authority.Bundle].
func (a *Authority) Changed() <-chan struct{} { return a.changed.next() }

// Issue returns a certificate for the key of csr, a PKCS #10 request in DER. It is for the process that has the
// authority: the hub. Nodes have [Authority.Join] and [Authority.Renew]; a node's identity is refused here, for that is a
// membership's.
func (a *Authority) Issue(_ context.Context, id ID, csr []byte) (Issued, error) {
	if err := a.ours(id); err != nil {
		return Issued{}, err
	}
	if id.Kind == KindNode {
		return Issued{}, refuse("%s is a node's identity, which is issued by Join and Renew", id)
	}
	key, err := requestKey(csr)
	if err != nil {
		return Issued{}, refuse("%w", err)
	}
	p := a.live.Load()
	chain, err := a.sign(p, id, 0, key)
	if err != nil {
		return Issued{}, err
	}
	return p.issued(chain), nil
}

// ours says why an identity cannot be issued here.
func (a *Authority) ours(id ID) error {
	if err := id.Check(); err != nil {
		return refuse("%w", err)
	}
	if id.Fleet != a.config.Fleet {
		return refuse("%s is of another fleet; this is the authority of %s", id, a.config.Fleet)
	}
	return nil
}

// sign returns a new leaf and the root that signed it.
func (a *Authority) sign(p *published, id ID, member uint32, key *ecdsa.PublicKey) ([]*x509.Certificate, error) {
	cert, err := p.signer.sign(leaf{id: id, member: member, key: key, now: a.config.Now(), ttl: a.config.LeafTTL})
	if err != nil {
		return nil, fmt.Errorf("issuing a certificate for %s: %w", id, err)
	}
	return []*x509.Certificate{cert, p.signer.cert}, nil
}

// issued returns what the holder of a new certificate receives.
func (p *published) issued(chain []*x509.Certificate) Issued {
	return Issued{Chain: encodeChain(chain...), Bundle: p.bundle}
}

// change makes one change: edit works on a copy of the state, which is stored, then in force. When
// edit or the store fails, nothing has changed here; the store may then hold the change all the same,
// which the next one overwrites.
func (a *Authority) change(ctx context.Context, edit func(s *state, now time.Time) error) error {
	select {
	case a.lock <- struct{}{}:
		defer func() { <-a.lock }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for another change of the certificate authority: %w", ctx.Err())
	}
	now := a.config.Now()
	next := a.live.Load().state.clone()
	next.forget(now)
	if err := edit(next, now); err != nil {
		return err
	}
	return a.commit(ctx, next)
}

func (a *Authority) warnOfExpiry() {
	p := a.live.Load()
	left := p.signer.cert.NotAfter.Sub(a.config.Now())
	if left < a.config.RootTTL/4 {
		a.config.Log.Warn("the fleet's root certificate must be replaced before it expires; until then every node can follow, afterwards each must join again",
			"fleet", a.config.Fleet, "expires", stamp(p.signer.cert.NotAfter))
	}
}

// refuse returns an error that is [ErrRefused].
func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}
