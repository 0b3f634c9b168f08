// Package identity is the fleet's certificate authority, and what each process holds of it.
//
// It stands under the walk of a call: whatever crosses a wire between machines is mutual TLS 1.3, and
// who is at the other end is a SPIFFE identity ([ID]) in its certificate. The hub runs the
// [Authority]: it lets nodes join by one-time tokens, renews and revokes their certificates, and
// replaces the root. Each process holds a [Source]: its key, its chain and the [Bundle] it trusts. The
// tls.Config values that a Source makes read it at every handshake, so that a renewal, a revocation
// and a new root are in force for the next connection, and no open one is dropped.
//
// A certificate is believed because a trusted root signed it, never because of a name in it: two
// fleets may both be called `shop`. An expired certificate opens one door, that of its own renewal
// ([RenewProtocol]), and [PeerID] refuses whoever came in by that door.
//
// Everything here is safe for concurrent use. What changes is written to the store, or to disk, before
// it is in force. Nothing listens, and the one goroutine is the caller's, in [Source.Run].
//
// The decisions behind it, and what each piece is good for to a thief, are told in
// docs/decisions/0016-certificates.md.
package identity
