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
	ID           string           `json:"id"`                         // SUBSCRIPTION:OFFSET
	Subscription string           `json:"subscription"`               // SERVICE/TOPIC, or an API's id
	Time         time.Time        `json:"time"`                       // when it was given up
	Attempts     uint64           `json:"attempts"`                   // since it was published, or redriven last
	Failures     []DeliveryFailed `json:"failures,omitempty"`         // oldest first; those that are not kept any more are counted in Attempts and Earlier
	Redriven     uint64           `json:"redriven,omitempty"`         // how often it was redriven before
	Earlier      uint64           `json:"earlier_attempts,omitempty"` // before it was redriven last
	TraceID      string           `json:"trace_id,omitempty"`
	Message      Message          `json:"message"`
}

// DeliveryFailed is one attempt that failed.
type DeliveryFailed struct {
	Attempt uint64    `json:"attempt"` // from 1
	Time    time.Time `json:"time"`
	Error   string    `json:"error"`
	SpanID  SpanID    `json:"span_id,omitzero"` // of the attempt, in the message's trace
	Life    uint64    `json:"life,omitempty"`   // how many redrives came before it; attempts are counted from 1 after each
}

// MessageStory says what became of one message.
type MessageStory struct {
	Message Message     `json:"message"` // without its data
	Bytes   int         `json:"bytes"`   // of its data
	Group   CommitGroup `json:"group"`
	// Subscriptions are those of its topic, sorted by name.
	Subscriptions []MessageFate `json:"subscriptions"`

	// Scheduled is when it was published, where it waited in the schedule until its commit, or waits there yet: Pending.
	Scheduled time.Time `json:"scheduled,omitzero"`
	Pending   bool      `json:"pending,omitempty"`
	// Copies are what it was committed again as: by redrives, and in dead-letter topics. Partial says that not all of the log was read for them.
	Copies  []MessageCopy `json:"copies,omitempty"`
	Partial bool          `json:"partial,omitempty"`
	// Seen is what the hub remembers of its publish and of its deliveries, oldest first.
	Seen []Observation `json:"seen,omitempty"`
}

// MessageCopy is a message that was committed again.
type MessageCopy struct {
	Topic string    `json:"topic"`
	ID    string    `json:"id"` // its place in that topic
	Time  time.Time `json:"time"`
	// From is the subscription that gave it up, in a dead-letter topic. Where it is empty it was redriven, to the one of Fate.
	From string       `json:"from,omitempty"`
	Fate *MessageFate `json:"fate,omitempty"`
}

// Explained are the messages that an id stands for.
type Explained struct {
	Stories []MessageStory `json:"stories"`
	More    int            `json:"more,omitempty"` // that were left out: of a request that published many
	// Since is how far back the log was read, where that is not all of it.
	Since time.Time `json:"since,omitzero"`
}

// CommitGroup is the batch of messages that became durable at once.
type CommitGroup struct {
	First    string    `json:"first"` // id of its first message
	Count    int       `json:"count"`
	Sequence uint64    `json:"sequence"` // of the JetStream message of the topic's log that holds it; 0: only the write-ahead log has it yet
	Time     time.Time `json:"time"`
	// Took is how long it was written, synced where its topic's durability is `disk`. The hub knows it of the last thousand groups; else 0.
	Took time.Duration `json:"took_ns,omitempty"`
}

// MessageFate is what became of a message in one subscription.
type MessageFate struct {
	Subscription string           `json:"subscription"`
	State        string           `json:"state"` // one of the fates
	Attempt      uint64           `json:"attempt,omitempty"`
	Due          time.Time        `json:"due,omitzero"`     // of the next attempt
	Paused       string           `json:"paused,omitempty"` // why the subscription delivers nothing, where it does not
	Failures     []DeliveryFailed `json:"failures,omitempty"`
}

// The fates of a message in a subscription.
const (
	FateSettled  = "settled"     // acknowledged, or from before the subscription
	FateFiltered = "filtered"    // the subscription's filter keeps it back
	FateDead     = "dead letter" // given up, and kept as a dead letter
	FateFlying   = "in flight"   // being delivered
	FateWaiting  = "waits"       // for its next attempt
	FateQueued   = "queued"      // not delivered yet
)
