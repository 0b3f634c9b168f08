package fleet

import "slices"

// Topic is what a publisher's manifest declares of a topic beyond its name. The zero value of a field
// means that it is not declared: another publisher's word holds, or else the default.
type Topic struct {
	Name string `json:"name"`
	Line int    `json:"line,omitempty"` // of the manifest
	// Durability says what an acknowledged message survives. Default: [Disk].
	Durability Durability `json:"durability,omitempty"`
	// Retention is the age at which messages are removed, delivered or not. Default: 7 days.
	Retention Duration `json:"retention,omitempty"`
	// Ordering says where a message that comes without an ordering key has one. Default: it has none.
	Ordering OrderingKey `json:"ordering,omitzero"`
}

// Durability is what a message that was acknowledged to its publisher survives.
type Durability string

// The classes of durability.
const (
	Disk   Durability = "disk"   // a power cut: written and fsynced
	OS     Durability = "os"     // the death of the hub: written, left to the operating system to sync
	Memory Durability = "memory" // neither: lost when the hub stops
)

// OrderingKey says where a message has its ordering key; one of the two is set, or none.
type OrderingKey struct {
	Attribute string `json:"attribute,omitempty"` // the attribute whose value it is
	// Path leads from the top of a message's JSON to the value: a member's name each, or in an array the
	// decimal index.
	Path []string `json:"path,omitempty"`
}

// Merge returns what two publishers declare of one topic, and the options in which they differ, by the
// names that manifests have for them; t's word holds there.
func (t Topic) Merge(o Topic) (both Topic, clashes []string) {
	differ := func(name string, mine, other, same bool) (take bool) {
		if mine && other && !same {
			clashes = append(clashes, name)
		}
		return !mine
	}
	if differ("durability", t.Durability != "", o.Durability != "", t.Durability == o.Durability) {
		t.Durability = o.Durability
	}
	if differ("retention", t.Retention != 0, o.Retention != 0, t.Retention == o.Retention) {
		t.Retention = o.Retention
	}
	same := t.Ordering.Attribute == o.Ordering.Attribute && slices.Equal(t.Ordering.Path, o.Ordering.Path)
	if differ("ordering", t.Ordering.set(), o.Ordering.set(), same) {
		t.Ordering = o.Ordering
	}
	return t, clashes
}

func (k OrderingKey) set() bool { return k.Attribute != "" || k.Path != nil }

// Subscription is one entry of `subscribes`: where deliveries of a topic go, and how.
type Subscription struct {
	Topic string `json:"topic"`
	Line  int    `json:"line,omitempty"` // of the manifest

	// Method and Path are of the request that a delivery is; empty where nothing is pushed.
	Method string `json:"method,omitempty"` // POST
	Path   string `json:"path,omitempty"`
	Port   uint16 `json:"port,omitempty"` // 0: the default port
	// GRPC says that Path is a gRPC method, which takes each message.
	GRPC bool `json:"grpc,omitempty"`
	// Format is what a push holds. Default: [CloudEvents].
	Format PushFormat `json:"format,omitempty"`
	// Pull lets the service pull messages, by the Pub/Sub API or by NATS.
	Pull bool `json:"pull,omitempty"`

	// Filter is an expression in the filter language of Pub/Sub; messages that do not match count as
	// acknowledged. Empty: all match.
	Filter string `json:"filter,omitempty"`
	// Unordered lets messages with the same ordering key be delivered at once, in any order.
	Unordered bool `json:"unordered,omitempty"`
	// ExactlyOnce answers an acknowledgement once it is durable, and refuses one that comes too late.
	ExactlyOnce bool `json:"exactly_once,omitempty"`
	// Retry says how often, and after which pauses, a message is tried again.
	Retry Retry `json:"retry,omitzero"`
	// DeadLetter is the topic to which a message is published, too, once its attempts are used up. Empty: it is
	// kept as a dead letter, and published nowhere.
	DeadLetter string `json:"dead_letter,omitempty"`
	// AckDeadline is how long one attempt may take. Default: 60 s.
	AckDeadline Duration `json:"ack_deadline,omitempty"`
	// Concurrency bounds the deliveries that are pushed at once. Default: 16.
	Concurrency int `json:"concurrency,omitempty"`
	// FromStart lets a new subscription begin with the oldest message that is kept, instead of the next one.
	FromStart bool `json:"from_start,omitempty"`
	// Delay is how long after its publish a message is delivered first.
	Delay Duration `json:"delay,omitempty"`
}

// PushFormat is what a pushed delivery holds.
type PushFormat string

// The formats of a push.
const (
	CloudEvents  PushFormat = "cloudevents" // the CloudEvent in binary mode; by gRPC, an io.cloudevents.v1.CloudEvent
	PubsubFormat PushFormat = "pubsub"      // the JSON envelope of Pub/Sub's push; by gRPC, a google.pubsub.v1.PubsubMessage
)

// Retry is how a message that was not acknowledged is tried again. Pauses double from Min to Max.
type Retry struct {
	Attempts int      `json:"attempts,omitempty"` // in all, 1 to 100; default: 20
	Min      Duration `json:"min,omitempty"`      // before the second attempt; default: 100 ms
	Max      Duration `json:"max,omitempty"`      // between two attempts; default: 30 s
}
