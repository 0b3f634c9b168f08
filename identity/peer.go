package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// PeerID returns who is at the other end of a connection that one of a [Source]'s configurations
// verified. It refuses a connection without an identity (a server's end of [JoinProtocol]), and both
// ends of [RenewProtocol], where a certificate may have expired ([ErrOnlyRenewal]).
func PeerID(cs tls.ConnectionState) (ID, error) {
	switch {
	case !cs.HandshakeComplete:
		return ID{}, errors.New("the TLS handshake is not complete, so the peer is not known")
	case cs.NegotiatedProtocol == RenewProtocol:
		return ID{}, ErrOnlyRenewal
	case len(cs.PeerCertificates) == 0:
		return ID{}, errors.New("the peer has no certificate, so it may only join")
	}
	return idOf(cs.PeerCertificates[0])
}

// RenewalPeer returns the chain, for [Authority.Renew], that a peer proved to hold on a connection of
// [Source.ServerForRenewal], and nothing for any other connection.
func RenewalPeer(cs tls.ConnectionState) ([]*x509.Certificate, error) {
	if !cs.HandshakeComplete || cs.NegotiatedProtocol != RenewProtocol || len(cs.PeerCertificates) == 0 {
		return nil, errors.New("certificates are renewed over connections that speak " + RenewProtocol)
	}
	return cs.PeerCertificates, nil
}

// Revoked tells whether the peer of an open connection has been revoked since its handshake. Who
// keeps connections asks this of each whenever [Source.Changed] says so, and closes those. A
// certificate that expires, or whose root is retired, ends no connection.
func (s *Source) Revoked(cs tls.ConnectionState) bool {
	h := s.held.Load()
	if h == nil || len(cs.PeerCertificates) == 0 {
		return false
	}
	_, revoked := h.trust.revoked[memberOf(cs.PeerCertificates[0])]
	return revoked
}
