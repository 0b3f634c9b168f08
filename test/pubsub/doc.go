// Package pubsub runs strangers' clients of Google Cloud Pub/Sub against the real binary: the official Go and Node libraries, Watermill's
// suite through its unmodified adapter, and the CloudEvents SDK. They know an address, and nothing of Shoal.
package pubsub
