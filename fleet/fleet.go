// Package fleet is Shoal's vocabulary: the plain values that its rooms exchange.
//
// It stands outside the three walks (a call, an event, a change) and under all of them. It
// imports nothing of Shoal's, does no I/O and holds no locks: every value here is data, safe to
// share once nobody writes to it, and each has one JSON form, which is also its form on disk and
// between hub and node. A type is admitted when two sibling rooms need it.
package fleet

import (
	"fmt"
	"slices"
	"strings"
)

// Protocol is what an application speaks on a port. Protocols are declared, never guessed.
type Protocol string

// The protocols of `listen` in a manifest.
const (
	HTTP Protocol = "http" // HTTP/1.1, and HTTP/2 with prior knowledge (h2c)
	GRPC Protocol = "grpc" // gRPC over h2c
	TCP  Protocol = "tcp"  // opaque bytes, half-close kept
)

// Built-in identities: callers that are not services. `allow` need not name them.
const (
	Gateway  = "gateway"  // calls that came in by the gateway; pass by `expose`
	Events   = "events"   // the broker's deliveries; pass by `subscribes`
	Operator = "operator" // the operator's own calls; pass by the operator socket
)

// Names that, with Events, the broker answers to.
const (
	Pubsub = "pubsub" // the Pub/Sub API
	NATS   = "nats"
)

// Reserved lists the names that no service may have.
var reserved = []string{Events, Pubsub, NATS, Gateway, Operator, "hub", "node", "shoal", "localhost"}

// Reserved returns the names that no service may have.
func Reserved() []string { return slices.Clone(reserved) }

// CheckName says why name cannot be a service's name, or returns nil. A service's name is a DNS
// label (RFC 1123 section 2.1) in lower case and is none of [Reserved].
func CheckName(name string) error {
	if slices.Contains(reserved, name) {
		return fmt.Errorf("%q is reserved for Shoal itself; reserved names are %s", name, strings.Join(reserved, ", "))
	}
	if name == "" || len(name) > 63 {
		return fmt.Errorf("%q has %d characters; a service's name is a DNS label of 1 to 63", name, len(name))
	}
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (c != '-' || i == 0 || i == len(name)-1) {
			return fmt.Errorf("%q is not a DNS label: use lower-case letters, digits and inner hyphens", name)
		}
	}
	return nil
}
