// Package pubsub is the Google Cloud Pub/Sub API (google.pubsub.v1) in front of the broker: what official client libraries
// speak when PUBSUB_EMULATOR_HOST names us. Publisher, Subscriber and SchemaService, over gRPC and, by the HTTP rules of the API's
// own protobuf files, as REST.
//
// In the walk of an event it is one of the ways in and out: [Server.ServeConn] takes a connection to the name `pubsub`, a publish
// ends in [broker.Broker.PublishMessages], a pull in [broker.Receiver.Receive]. It keeps nothing of messages; of its own it has the
// schemas and the key that signs the tokens of pushes, both in the broker's store.
//
// Any project id names the one fleet: answers echo the caller's. Every exported method is safe for concurrent use.
package pubsub
