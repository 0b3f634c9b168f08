package identity

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"
)

// NodeState is where a node's membership is in its life.
type NodeState string

// The states of a node.
const (
	NodeValid   NodeState = "valid"   // holds a certificate that is in force
	NodeExpired NodeState = "expired" // has not renewed in time; it will be valid once it does
	NodeRevoked NodeState = "revoked" // is refused everywhere until it joins with a new token
)

// NodeStatus is what the authority knows of one node.
type NodeStatus struct {
	Node    string    `json:"node"`
	State   NodeState `json:"state"`
	Joined  time.Time `json:"joined"`
	Renewed time.Time `json:"renewed"` // when its newest certificate was issued
	Expires time.Time `json:"expires"` // when that expires
	Revoked time.Time `json:"revoked,omitzero"`
}

// Nodes returns all nodes that ever joined, by name.
func (a *Authority) Nodes(context.Context) []NodeStatus {
	s, now := a.live.Load().state, a.config.Now()
	var list []NodeStatus
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		m := s.Nodes[name]
		n := NodeStatus{Node: name, State: NodeValid, Joined: m.Joined, Renewed: m.Renewed, Expires: m.Expires, Revoked: m.Revoked}
		if now.After(m.Expires) {
			n.State = NodeExpired
		}
		if !m.Revoked.IsZero() {
			n.State = NodeRevoked
		}
		list = append(list, n)
	}
	return list
}

// Renew returns a new certificate for a node, for the key of csr, which may be a new one. presented
// is the chain whose key the peer proved to hold in a TLS handshake ([RenewalPeer] returns it). It may
// have expired, however long ago: the node must be a member still, and not revoked.
func (a *Authority) Renew(ctx context.Context, presented []*x509.Certificate, csr []byte) (Issued, error) {
	key, err := requestKey(csr)
	if err != nil {
		return Issued{}, refuse("%w", err)
	}
	var chain []*x509.Certificate
	err = a.change(ctx, func(s *state, now time.Time) error {
		node, err := a.member(s, presented)
		if err != nil {
			return err
		}
		chain, err = a.issueNode(s, node, key, now)
		return err
	})
	if err != nil {
		return Issued{}, fmt.Errorf("renewing a certificate of fleet %s: %w", a.config.Fleet, err)
	}
	return a.live.Load().issued(chain), nil
}

// member returns the node whose membership a chain proves.
func (a *Authority) member(s *state, presented []*x509.Certificate) (string, error) {
	if len(presented) == 0 {
		return "", refuse("no certificate was presented")
	}
	cert := presented[0]
	id, err := a.live.Load().trust.genuine(cert)
	if err != nil {
		return "", refuse("%w", err)
	}
	if id.Kind != KindNode {
		return "", refuse("%s is no node; the hub renews the certificates of services", id)
	}
	if m, ok := s.Nodes[id.Name]; !ok || !m.Revoked.IsZero() || m.Member != memberOf(cert) {
		return "", refuse("%s: %w: node %s was revoked, or has joined anew since: it needs a new join token", id, ErrRevoked, id.Name)
	}
	return id.Name, nil
}

// Revoke withdraws all certificates of a node and of the services issued to it, and its open join
// tokens. From then on it can neither renew nor join without a new token; whoever holds the new bundle
// refuses it in every handshake, and ends its open connections ([Source.Revoked]). A node that is
// revoked stays so: no error.
func (a *Authority) Revoke(ctx context.Context, node string) error {
	err := a.change(ctx, func(s *state, now time.Time) error {
		open := len(s.Tokens)
		s.Tokens = slices.DeleteFunc(s.Tokens, func(t joinToken) bool { return t.Node == node })
		m, ok := s.Nodes[node]
		if !ok && open == len(s.Tokens) {
			return refuse("no node of that name has joined, and no token for it is open")
		}
		if !ok || !m.Revoked.IsZero() {
			return nil
		}
		s.withdraw(node, m, now, now.Add(a.config.LeafTTL))
		m.Revoked = now
		s.Nodes[node] = m
		return nil
	})
	if err != nil {
		return fmt.Errorf("revoking node %s: %w", node, err)
	}
	a.config.Log.Info("node revoked", "node", node)
	return nil
}

// withdraw lists a membership as revoked, until a day after the last certificate that it may have:
// its node's, or a service's that was issued a moment ago and ends at last.
func (s *state) withdraw(node string, m member, now, last time.Time) {
	const margin = 24 * time.Hour // clocks differ
	s.Revoked = append(s.Revoked, Revocation{Node: node, Member: m.Member, Until: later(m.Expires, last).Add(margin)})
	s.touch(now)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
