package fleet

import "time"

// Message is a message of a topic as the operator sees it.
type Message struct {
	Topic       string            `json:"topic"`
	ID          string            `json:"id"` // its decimal offset in the topic
	Published   time.Time         `json:"published"`
	Publisher   string            `json:"publisher"` // the service, or `operator`
	Key         string            `json:"ordering_key,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"` // those of a CloudEvent by its Pub/Sub binding: `ce-id`, …
	Data        []byte            `json:"data,omitempty"`
	RequestID   string            `json:"request_id,omitempty"`
	Traceparent string            `json:"traceparent,omitempty"` // W3C trace context of the publish
	NotBefore   time.Time         `json:"not_before,omitzero"`   // it is not delivered before
	// Missed is, in a tail, how many messages before this one its reader was too slow for.
	Missed uint64 `json:"missed,omitempty"`
}

// DeadLetter is a message that a subscription gave up.
type DeadLetter struct {
	ID           string           `json:"id"`           // SUBSCRIPTION:OFFSET
	Subscription string           `json:"subscription"` // SERVICE/TOPIC, or an API's id
	Time         time.Time        `json:"time"`         // when it was given up
	Attempts     uint64           `json:"attempts"`
	Failures     []DeliveryFailed `json:"failures,omitempty"` // oldest first
	TraceID      string           `json:"trace_id,omitempty"`
	Message      Message          `json:"message"`
}

// DeliveryFailed is one attempt that failed.
type DeliveryFailed struct {
	Attempt uint64    `json:"attempt"` // from 1
	Time    time.Time `json:"time"`
	Error   string    `json:"error"`
	SpanID  SpanID    `json:"span_id,omitzero"` // of the attempt, in the message's trace
}

// MessageStory says what became of one message.
type MessageStory struct {
	Message Message     `json:"message"` // without its data
	Bytes   int         `json:"bytes"`   // of its data
	Group   CommitGroup `json:"group"`
	// Subscriptions are those of its topic, sorted by name.
	Subscriptions []MessageFate `json:"subscriptions"`
}

// CommitGroup is the batch of messages that became durable at once.
type CommitGroup struct {
	First    string    `json:"first"` // id of its first message
	Count    int       `json:"count"`
	Sequence uint64    `json:"sequence"` // of the JetStream message of the topic's log that holds it; 0: only the write-ahead log has it yet
	Time     time.Time `json:"time"`
}

// MessageFate is what became of a message in one subscription.
type MessageFate struct {
	Subscription string           `json:"subscription"`
	State        string           `json:"state"` // one of the fates
	Attempt      uint64           `json:"attempt,omitempty"`
	Due          time.Time        `json:"due,omitzero"` // of the next attempt
	Failures     []DeliveryFailed `json:"failures,omitempty"`
}

// The fates of a message in a subscription.
const (
	FateSettled = "settled"     // acknowledged, or not for this subscription: filtered out, or from before it
	FateDead    = "dead letter" // given up, and kept as a dead letter
	FateFlying  = "in flight"   // being delivered
	FateWaiting = "waits"       // for its next attempt
	FateQueued  = "queued"      // not delivered yet
)
