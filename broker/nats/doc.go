// Package nats speaks the NATS client protocol to applications: the third way into a topic, and by
// subscriptions a way out of it (https://docs.nats.io/reference/reference-protocols/nats-protocol).
//
// It is a front of the broker's, not a NATS server: a subject is a topic, and nothing else is served. A publish
// is answered, where it has a reply subject, after its commit and in the form of JetStream's acknowledgement; a
// subscription receives what the service's manifest subscribes, each message with a reply subject that takes
// JetStream's +ACK, -NAK, +WPI and +TERM. There is no JetStream API, no system account, and no talk between
// clients. docs/decisions/0031-nats-is-spoken-not-served.md says why no NATS server stands here.
//
// In the walk of an event it stands before [broker.Broker.PublishMessages] and behind [broker.Receiver]. A
// [Server] may be used concurrently; each connection has one goroutine that reads, one that publishes, one that
// writes out, and one for each topic that it subscribes.
package nats
