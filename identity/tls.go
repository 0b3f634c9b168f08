package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// The protocols (ALPN, RFC 7301) of the two doors that are open to who has no valid certificate. What
// is spoken inside is the caller's; HTTP/1.1 over them is what package net/http makes of an ALPN that
// it does not know.
const (
	// JoinProtocol: the client has no certificate at all, and brings a join token.
	JoinProtocol = "shoal-join"
	// RenewProtocol: the client's certificate may have expired. It is for [Authority.Renew] alone.
	RenewProtocol = "shoal-renew"
)

// ErrOnlyRenewal: the peer came in by [RenewProtocol], so its certificate may have expired and it may do
// nothing but renew it.
var ErrOnlyRenewal = errors.New("this connection may only renew a certificate")

// base is what all our configurations have in common. Sessions are not resumed: a ticket would
// outlive a revocation. The curves are Go's defaults, which begin with the hybrid X25519MLKEM768.
func (s *Source) base(alpn []string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             alpn,
		Time:                   s.config.Now,
		SessionTicketsDisabled: true,
		// Go's own verification wants a host name and roots that are fixed; ours is VerifyConnection,
		// which reads the bundle in force.
		InsecureSkipVerify: true,
		GetCertificate:     func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return s.certificate()
		},
	}
}

func (s *Source) certificate() (*tls.Certificate, error) {
	h := s.held.Load()
	if h == nil {
		return nil, ErrEmpty
	}
	return &h.cert, nil
}

// Server returns a configuration for listeners: mutual TLS 1.3 with a valid member of this fleet that
// allow accepts (nil: every member). With alpn, the client must speak one of them.
func (s *Source) Server(allow func(ID) error, alpn ...string) *tls.Config {
	c := s.base(alpn)
	c.ClientAuth = tls.RequireAnyClientCert // verified by mutual
	c.VerifyConnection = s.mutual(allow, alpn)
	return c
}

// Client returns a configuration for dialing: mutual TLS 1.3 with a valid member of this fleet that want
// accepts (nil: every member). With alpn, the server must speak one of them. The address that is
// dialled plays no part in whom the client believes.
func (s *Source) Client(want func(ID) error, alpn ...string) *tls.Config {
	c := s.base(alpn)
	c.VerifyConnection = s.mutual(want, alpn)
	return c
}

// mutual verifies a peer against the bundle in force.
func (s *Source) mutual(allow func(ID) error, alpn []string) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		id, err := s.Verify(cs.PeerCertificates)
		if err != nil {
			return err
		}
		if err := spoken(cs, alpn); err != nil {
			return err
		}
		if allow == nil {
			return nil
		}
		return allow(id)
	}
}

// Verify returns whose certificate heads chain, if it is valid now by the bundle in force.
func (s *Source) Verify(chain []*x509.Certificate) (ID, error) {
	h := s.held.Load()
	if h == nil {
		return ID{}, ErrEmpty
	}
	return h.trust.verify(chain, s.config.Now())
}

// spoken refuses a peer that named no protocol, where crypto/tls would let it pass.
func spoken(cs tls.ConnectionState, alpn []string) error {
	if len(alpn) == 0 || slices.Contains(alpn, cs.NegotiatedProtocol) {
		return nil
	}
	return fmt.Errorf("the peer speaks none of the protocols %q", alpn)
}

// ServerForRenewal returns the configuration of the hub's renewal door: it speaks [RenewProtocol] alone,
// and accepts nodes of this fleet whose certificate is genuine, valid or expired. What is served there
// must be [Authority.Renew] and nothing else; [PeerID] refuses its connections everywhere else.
func (s *Source) ServerForRenewal() *tls.Config {
	c := s.base([]string{RenewProtocol})
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		h := s.held.Load()
		if h == nil || len(cs.PeerCertificates) == 0 {
			return ErrEmpty
		}
		id, err := h.trust.believe(cs.PeerCertificates[0])
		if err != nil {
			return err
		}
		if id.Kind != KindNode {
			return fmt.Errorf("%w: %s is no node", ErrUntrusted, id)
		}
		return spoken(cs, []string{RenewProtocol})
	}
	return c
}

// ClientForRenewal returns the configuration with which a node dials [Source.ServerForRenewal]: it
// presents its certificate, expired or not, to this fleet's hub alone.
func (s *Source) ClientForRenewal() *tls.Config { return s.Client(s.WantHub, RenewProtocol) }

// ServerForJoin returns the configuration of the hub's door for newcomers: it speaks [JoinProtocol] alone,
// and asks for no certificate. What is served there must be [Authority.Join] and nothing else.
func (s *Source) ServerForJoin() *tls.Config {
	c := s.base([]string{JoinProtocol})
	c.VerifyConnection = func(cs tls.ConnectionState) error { return spoken(cs, []string{JoinProtocol}) }
	return c
}

// ClientForJoin returns the configuration with which a machine that is no member dials the hub:
// it believes a hub whose root the token names. The receiver may be empty, and shows nothing of itself.
func (s *Source) ClientForJoin(token string) (*tls.Config, error) {
	t, err := parseToken(token)
	if err != nil {
		return nil, err
	}
	c := s.base([]string{JoinProtocol})
	c.GetCertificate, c.GetClientCertificate = nil, nil
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := s.vouched(t, cs.PeerCertificates); err != nil {
			return err
		}
		return spoken(cs, []string{JoinProtocol})
	}
	return c, nil
}

// vouched believes a hub whose chain brings a root that the token names.
func (s *Source) vouched(t tokenText, chain []*x509.Certificate) error {
	i := slices.IndexFunc(chain, t.knows)
	if i < 0 {
		return fmt.Errorf("%w: the root that the token names did not sign the server: the token is of another fleet, "+
			"or this is not its hub; check the address, or ask for a new token", ErrUntrusted)
	}
	b := Bundle{Roots: []string{encodeChain(chain[i])}, Signer: fingerprint(chain[i])}
	if len(chain[i].URIs) == 1 {
		b.Fleet = chain[i].URIs[0].Host
	}
	trust, err := compile(b)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	id, err := trust.verify(chain, s.config.Now())
	if err != nil {
		return err
	}
	return wantHub(id)
}

// WantHub accepts this fleet's hub alone; for [Source.Client].
func (s *Source) WantHub(id ID) error { return wantHub(id) }

func wantHub(id ID) error {
	if id.Kind != KindHub {
		return fmt.Errorf("%w: the server is %s, not the hub", ErrUntrusted, id)
	}
	return nil
}

// ByProtocol returns one server configuration for several doors on one port: of configs, the first
// that speaks a protocol which the client offers. A client that offers none of theirs is refused.
func ByProtocol(configs ...*tls.Config) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			for _, c := range configs {
				if slices.ContainsFunc(c.NextProtos, func(p string) bool { return slices.Contains(hello.SupportedProtos, p) }) {
					return c, nil
				}
			}
			return nil, fmt.Errorf("the client speaks none of our protocols, but %q", hello.SupportedProtos)
		},
	}
}
