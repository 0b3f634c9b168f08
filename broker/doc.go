// Package broker is the fleet's message broker and durable store, on a JetStream that nothing but this package sees: an embedded
// one, or, for all but the store, servers of the user's (remote.go; move.go brings messages from one to the other).
//
// In the walk of an event it is everything between two applications: [Broker.Publish] checks, commits
// (fsync included) and acknowledges; then each subscription delivers by an [net/http.RoundTripper], which is the
// outbound proxy. For control it is the store of desired state ([Broker.Store]). It has no part in a call.
//
// What it promises. A message that was acknowledged survives what its topic's durability says (by default a power cut), and reaches
// every subscription that existed when it was published and whose filter it passes, at least once, unless the topic's retention
// (7 days by default) passes first. Nothing is delivered before its commit. Deliveries of one subscription begin in the order of commit, several at
// a time; of one ordering key, where the subscription asks for that, a message begins only when all before it are settled, or in flight
// to the same receiver, and a failure takes back what follows. After a crash, what was not settled is delivered again, in order and under the attempt
// numbers that were recorded. A subscription begins at the topic's head when it is first declared or created (or, if it asks for that, at the oldest
// message): it sees what is published from then on. On an exactly-once subscription no message is delivered again whose
// acknowledgement was answered. An event that is published again, with the source and the id of one of the last ten minutes (and of the
// last million), is answered as before and not committed; messages of the Pub/Sub API carry no id of their publisher's, and are not known again.
// A message for later is never delivered early; a crash in the moment in which it is due may commit it twice, where it is no event.
//
// How it keeps that. Topics are subjects of one stream per durability class (lane.go). Publishes that arrive together are one commit group: a batch of
// records per topic, with offsets of the topic's own (record.go, commit.go), which is one JetStream message of the topic's log; of several topics of
// class `disk` it is one message of the write-ahead log (wal.go), from which the topics' logs are written later (settle.go).
// A subscription is a cursor (floor, settled ranges, attempts; cursor.go) that is saved to a second
// stream, together with others by one message (ring.go); leases live in memory (window.go, run.go). Dead letters lie in a third stream, resources in a catalog, messages for later in a log with a
// heap above it (schedule.go), desired state in a key-value bucket. All of it but topics of other durability is written with SyncAlways.
//
// Every exported method is safe for concurrent use.
package broker
