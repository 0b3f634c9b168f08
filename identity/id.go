package identity

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// Kind is what an [ID] names.
type Kind string

// The kinds of identity in a fleet.
const (
	KindService Kind = "service" // spiffe://FLEET/SERVICE
	KindNode    Kind = "node"    // spiffe://FLEET/node/NAME
	KindHub     Kind = "hub"     // spiffe://FLEET/hub
)

// ID is the SPIFFE identity of something in a fleet, whose name is the trust domain
// (SPIFFE-ID section 2). Values are comparable. The zero value names nothing.
type ID struct {
	Fleet string
	Kind  Kind
	Name  string // of the service or node; empty for the hub
}

// Service returns the identity of a service. [ID.Check] says whether its names are well formed.
func Service(fleet, name string) ID { return ID{fleet, KindService, name} }

// Node returns the identity of a node. [ID.Check] says whether its names are well formed.
func Node(fleet, name string) ID { return ID{fleet, KindNode, name} }

// Hub returns the identity of a fleet's hub.
func Hub(fleet string) ID { return ID{fleet, KindHub, ""} }

// ParseID reads an identity as [ID.String] writes it. Nothing else is accepted: no port, query,
// fragment, escape or upper case, none of which SPIFFE-ID section 2 allows either.
func ParseID(text string) (ID, error) {
	rest, ok := strings.CutPrefix(text, "spiffe://")
	domain, path, slash := strings.Cut(rest, "/")
	if !ok || !slash {
		return ID{}, fmt.Errorf("%q is not a SPIFFE identity such as spiffe://shop/orders", text)
	}
	id := Service(domain, path)
	if node, ok := strings.CutPrefix(path, "node/"); ok {
		id = Node(domain, node)
	}
	if path == "hub" {
		id = Hub(domain)
	}
	if err := id.Check(); err != nil {
		return ID{}, fmt.Errorf("%q is no identity of a fleet: %w", text, err)
	}
	return id, nil
}

// String returns the identity as a URI.
func (id ID) String() string {
	switch id.Kind {
	case KindNode:
		return "spiffe://" + id.Fleet + "/node/" + id.Name
	case KindHub:
		return "spiffe://" + id.Fleet + "/hub"
	}
	return "spiffe://" + id.Fleet + "/" + id.Name
}

// Check says what is wrong with the identity's names, or returns nil.
func (id ID) Check() error {
	if err := checkLabel("a fleet's name", id.Fleet); err != nil {
		return err
	}
	switch id.Kind {
	case KindService:
		return fleet.CheckName(id.Name)
	case KindNode:
		return CheckNode(id.Name)
	case KindHub:
		return nil
	}
	return fmt.Errorf("%q is no kind of identity", id.Kind)
}

// CheckNode says why name cannot be a node's name, or returns nil. A node's name is what host names
// are: lower-case letters, digits and inner hyphens, at most 63 of them, with inner dots.
func CheckNode(name string) error {
	if len(name) > 63 {
		return fmt.Errorf("%q has %d characters; a node's name has at most 63", name, len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel("a node's name", label); err != nil {
			return err
		}
	}
	return nil
}

// checkLabel checks a DNS label (RFC 1123 section 2.1) in lower case.
func checkLabel(what, label string) error {
	if label == "" || len(label) > 63 {
		return fmt.Errorf("%s cannot be %q: it takes 1 to 63 characters", what, label)
	}
	for i, c := range []byte(label) {
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (c != '-' || i == 0 || i == len(label)-1) {
			return fmt.Errorf("%s cannot be %q: use lower-case letters, digits and inner hyphens", what, label)
		}
	}
	return nil
}

// uri returns the identity as a certificate carries it.
func (id ID) uri() *url.URL {
	path, _ := strings.CutPrefix(id.String(), "spiffe://"+id.Fleet)
	return &url.URL{Scheme: "spiffe", Host: id.Fleet, Path: path}
}

// idOf returns the identity in a certificate, which must carry exactly one and no other name
// (X509-SVID section 2: one URI; our own rule: nothing beside it).
func idOf(cert *x509.Certificate) (ID, error) {
	if len(cert.URIs) != 1 || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) > 0 {
		return ID{}, fmt.Errorf("the certificate names %d URIs and %d other names; an identity is one URI and nothing else",
			len(cert.URIs), len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses))
	}
	return ParseID(cert.URIs[0].String())
}
