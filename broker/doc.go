// Package broker is the fleet's message broker and durable store, on an embedded JetStream that
// nothing but this package sees.
//
// In the walk of an event it is everything between two applications: [Broker.Publish] checks, commits
// (fsync included) and acknowledges; then each subscription delivers by an [net/http.RoundTripper], which is the
// outbound proxy. For control it is the store of desired state ([Broker.Store]). It has no part in a call.
//
// What it promises. An event that was acknowledged survives a power cut, and reaches every subscription that existed when it
// was published, at least once, unless the topic's retention (7 days by default) passes first. Nothing
// is delivered before its commit. Deliveries of one subscription begin in the order of commit, several at
// a time; after a crash, what was not settled is delivered again, in order and under the attempt
// numbers that were recorded. A subscription begins at the topic's head when its service first declares it:
// it sees what is published from then on.
//
// How it keeps that. Topics are subjects of one stream. Publishes that arrive together are one commit group: one JetStream
// message per topic, which holds a batch of records with offsets of the topic's own (record.go, commit.go).
// A subscription is a cursor (floor, settled ranges, attempts; cursor.go) that is saved, in groups, to a second
// stream; leases live in memory (window.go). Dead letters lie in a third stream, desired state in a key-value
// bucket. All of it is written with SyncAlways.
//
// Every exported method is safe for concurrent use.
package broker
