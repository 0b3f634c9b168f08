package broker

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// Config configures a [Broker]. Zero values mean the defaults that are named.
type Config struct {
	Dir string // the folder of JetStream's files, used by one process at a time; required
	// External is where the messages are to lie, where that is not Dir. Desired state lies in Dir in any case. A broker that has messages
	// leaves them where they are: see [Broker.Move].
	External fleet.Engine
	Fleet    string // whose broker this is, as others on an external server are told
	// Observe is told of every publish and every delivery attempt. It must not keep the value. nil: nobody is.
	Observe func(*fleet.Observation)
	// Committed is told of every commit group: its topic's durability, its messages, how long it was written. nil: nobody is.
	Committed func(class fleet.Durability, messages int, took time.Duration)
	// Acknowledged is told how long after its commit a subscription's message was acknowledged. nil: nobody is.
	Acknowledged func(subscription string, after time.Duration)
	// Transport gives the way out for calls made as caller. Run asks for it once. nil: nothing is reachable.
	Transport func(caller string) http.RoundTripper
	// Check says why data may not be published to a topic with a schema; else which attributes tell subscribers how to read it.
	// nil: nothing may be published to such a topic.
	Check func(s *TopicSchema, data []byte) (attributes map[string]string, err error)
	// Token makes the OIDC token of a push, for an audience. nil: pushes that want one fail.
	Token   func(ctx context.Context, email, audience string) (string, error)
	Sampler *observe.Sampler // of the traces that begin here; nil: all are sampled
	Log     *slog.Logger     // nil: nothing is logged

	MaxStore  int64 // bytes of disk for the events of all topics; 10 GB
	MaxTopic  int64 // bytes of disk for the events of one topic; 1 GB
	MaxDead   int64 // bytes of disk for dead letters; 1 GB
	MaxMemory int64 // bytes of memory-backed streams; 64 MB
	// Reserve is the free disk space, in bytes, below which publishes are refused, so that control
	// can still write; 64 MB. What is ahead of the topics' logs counts as written to them, too. Negative: none.
	Reserve   int64
	Retention time.Duration // age at which events are removed, delivered or not; 7 days
	MaxEvent  int           // bytes of one event's data; 10 MB

	// Hold is how long publishes wait for external servers that do not answer, from when they do not: while they elect another leader, or restart. A
	// publisher may wait for less. 30 s. Negative: not at all.
	Hold time.Duration

	Concurrency int           // deliveries in flight per subscription; 16
	Attempts    int           // failed attempts before an event is dead-lettered; 20
	AckDeadline time.Duration // how long one attempt may take; 60 s
	MinBackoff  time.Duration // before the second attempt; 100 ms
	MaxBackoff  time.Duration // between two attempts, unless Retry-After asks for more; 30 s
	Drain       time.Duration // how long a stop waits for deliveries in flight; 5 s
}

// Sizes that are not worth a knob.
const (
	maxAttributes = 64 << 10 // bytes of one event's attributes
	// maxMessageAttributes is the same of a message: what Pub/Sub's limits of 100 attributes of 256 and 1,024 bytes add up to.
	maxMessageAttributes = 100 * (256 + 1024)
	maxRequest           = 16 << 20  // bytes of one publish: base64 data in JSON is a third longer
	maxPayload           = 40 << 20  // bytes of one JetStream message: a group of one publish at its largest
	groupBytes           = 4 << 20   // bytes at which a commit group is closed
	publishMemory        = 256 << 20 // bytes of bodies that publishes may hold together
	windowBytes          = 4 << 20   // bytes of records that one subscription holds in memory
	windowQueue          = 1024      // records read ahead
	windowLeases         = 1024      // records in flight or waiting for their next attempt
	pullLeases           = 16 << 10  // the same, of a subscription that is pulled: its records need not stay in memory
)

func (c *Config) setDefaults() error {
	if c.Dir == "" {
		return errors.New("broker: Config needs Dir, the folder of its files")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Observe == nil {
		c.Observe = func(*fleet.Observation) {}
	}
	if c.Committed == nil {
		c.Committed = func(fleet.Durability, int, time.Duration) {}
	}
	if c.Acknowledged == nil {
		c.Acknowledged = func(string, time.Duration) {}
	}
	if c.Transport == nil {
		c.Transport = func(string) http.RoundTripper { return noTransport{} }
	}
	set(&c.MaxStore, 10<<30)
	set(&c.MaxTopic, 1<<30)
	set(&c.MaxDead, 1<<30)
	set(&c.MaxMemory, 64<<20)
	set(&c.Reserve, 64<<20)
	set(&c.Retention, 7*24*time.Hour)
	set(&c.MaxEvent, 10<<20)
	set(&c.Hold, 30*time.Second)
	set(&c.Concurrency, 16)
	set(&c.Attempts, 20)
	set(&c.AckDeadline, time.Minute)
	set(&c.MinBackoff, 100*time.Millisecond)
	set(&c.MaxBackoff, 30*time.Second)
	set(&c.Drain, 5*time.Second)
	return nil
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// noTransport stands where a broker was given no way out: nothing is reachable.
type noTransport struct{}

func (noTransport) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errUnreachable{errors.New("the broker was given no transport")}
}
