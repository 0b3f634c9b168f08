package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// maxTokens bounds the tokens of a time: open, or spent and not expired.
const maxTokens = 1000

// Token returns a token with which one machine may join once, as node, within ttl (0:
// [DefaultTokenTTL]). A node that has joined, and is not revoked, is refused: see
// [Authority.RejoinToken]. Of the token's secret only a hash is kept.
func (a *Authority) Token(ctx context.Context, node string, ttl time.Duration) (string, error) {
	return a.token(ctx, joinToken{Node: node}, ttl)
}

// RejoinToken is [Authority.Token] for a machine that has lost its identity: the token also replaces
// a membership that stands, whose certificates are revoked in the moment of the join.
func (a *Authority) RejoinToken(ctx context.Context, node string, ttl time.Duration) (string, error) {
	return a.token(ctx, joinToken{Node: node, Rejoin: true}, ttl)
}

func (a *Authority) token(ctx context.Context, want joinToken, ttl time.Duration) (string, error) {
	if err := CheckNode(want.Node); err != nil {
		return "", refuse("%w", err)
	}
	if ttl < 0 {
		return "", refuse("a join token cannot live for %s", ttl)
	}
	if ttl == 0 {
		ttl = DefaultTokenTTL
	}
	var text tokenText
	err := a.change(ctx, func(s *state, now time.Time) (err error) {
		if err := s.mayJoin(want); err != nil {
			return err
		}
		if len(s.Tokens) >= maxTokens {
			return refuse("%d join tokens have not expired yet: wait until some have", len(s.Tokens))
		}
		roots := a.live.Load().trust.roots
		if text, err = newToken(roots); err != nil {
			return err
		}
		t := text.record()
		t.Node, t.Rejoin, t.Expires = want.Node, want.Rejoin, now.Add(ttl)
		for _, r := range roots {
			t.Roots = append(t.Roots, fingerprint(r))
		}
		s.Tokens = append(s.Tokens, t)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("making a join token for node %s: %w", want.Node, err)
	}
	return text.String(), nil
}

// mayJoin refuses to let a second machine take a name, unless its token was made for that.
func (s *state) mayJoin(t joinToken) error {
	if m, ok := s.Nodes[t.Node]; ok && m.Revoked.IsZero() && !t.Rejoin {
		return refuse("a node %s has joined already, at %s: give the new machine another name, revoke the old node first, "+
			"or make a token to rejoin if it is the same machine and has lost its identity", t.Node, stamp(m.Joined))
	}
	return nil
}

// Join spends a token and returns the certificate of its node for the key of csr. The same key may
// spend the same token again while that lives, and is given a certificate of the same membership:
// the first answer may have been lost on its way.
func (a *Authority) Join(ctx context.Context, token string, csr []byte) (Issued, error) {
	text, err := parseToken(token)
	if err != nil {
		return Issued{}, refuse("%w", err)
	}
	key, err := requestKey(csr)
	if err != nil {
		return Issued{}, refuse("%w", err)
	}
	hash, err := keyHash(key)
	if err != nil {
		return Issued{}, refuse("%w", err)
	}
	var node string
	var chain []*x509.Certificate
	err = a.change(ctx, func(s *state, now time.Time) error {
		t, err := s.spend(text, hash, now, now.Add(a.config.LeafTTL))
		if err != nil {
			return err
		}
		node = t.Node
		chain, err = a.issueNode(s, node, key, now)
		return err
	})
	if err != nil {
		return Issued{}, fmt.Errorf("joining fleet %s: %w", a.config.Fleet, err)
	}
	a.config.Log.Info("node joined", "node", node, "expires", stamp(chain[0].NotAfter))
	return a.live.Load().issued(chain), nil
}

// spend finds a token, marks it as used by a key, and makes its node a member. Certificates issued
// so far end at last.
func (s *state) spend(text tokenText, keyHash string, now, last time.Time) (joinToken, error) {
	i := slices.IndexFunc(s.Tokens, func(t joinToken) bool { return t.opens(text) })
	if i < 0 {
		return joinToken{}, refuse("the token is unknown, has expired or was withdrawn: ask the hub's operator for a new one")
	}
	t := &s.Tokens[i]
	if t.UsedBy == keyHash && t.Member == s.Nodes[t.Node].Member {
		return *t, nil
	}
	if t.UsedBy != "" {
		return joinToken{}, refuse("the token for node %s has been used: ask the hub's operator for a new one, "+
			"and find out who used it if it was not this machine", t.Node)
	}
	if err := s.mayJoin(*t); err != nil {
		return joinToken{}, err
	}
	t.UsedBy = keyHash
	t.Member = s.admit(t.Node, now, last)
	return *t, nil
}

// admit makes a node a member and returns its membership. A membership that stood ends.
func (s *state) admit(node string, now, last time.Time) uint32 {
	if old, ok := s.Nodes[node]; ok && old.Revoked.IsZero() {
		s.withdraw(node, old, now, last)
	}
	s.Members++
	s.Nodes[node] = member{Member: s.Members, Joined: now}
	return s.Members
}

// issueNode signs a certificate for a member and notes its end.
func (a *Authority) issueNode(s *state, node string, key *ecdsa.PublicKey, now time.Time) ([]*x509.Certificate, error) {
	m := s.Nodes[node]
	chain, err := a.sign(a.live.Load(), Node(s.Fleet, node), m.Member, key)
	if err != nil {
		return nil, err
	}
	m.Renewed, m.Expires = now, later(m.Expires, chain[0].NotAfter)
	s.Nodes[node] = m
	return chain, nil
}
