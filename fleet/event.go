package fleet

import "time"

// TopicStatus is the operator's view of one topic.
type TopicStatus struct {
	Name       string    `json:"name"`
	Publishers []string  `json:"publishers,omitempty"` // services that declare it, sorted
	Published  uint64    `json:"published"`            // events ever accepted
	Known      uint64    `json:"known"`                // events that were published again, and known by source and id, since the hub's start
	Retained   uint64    `json:"retained"`             // events still kept
	Bytes      uint64    `json:"bytes"`                // that the kept events take
	Oldest     time.Time `json:"oldest,omitzero"`      // when the oldest kept event was committed
	Last       time.Time `json:"last,omitzero"`        // when the last event was committed
	// Stopped says why the topic refuses events; empty while it takes them.
	Stopped string `json:"stopped,omitempty"`
}

// SubscriptionStatus is the operator's view of one subscription.
type SubscriptionStatus struct {
	Name        string    `json:"name"` // SERVICE/TOPIC
	Service     string    `json:"service"`
	Topic       string    `json:"topic"`
	Path        string    `json:"path"`                  // where deliveries go
	Lag         uint64    `json:"lag"`                   // events not settled: neither acknowledged nor dead-lettered
	Oldest      time.Time `json:"oldest,omitzero"`       // when the oldest of those was committed
	Concurrency int       `json:"concurrency,omitempty"` // pushes that may be in flight now: what the receiver sustains
	InFlight    int       `json:"in_flight"`             // being delivered now
	Retrying    int       `json:"retrying"`              // wait for their next attempt
	Attempts    uint64    `json:"attempts"`              // deliveries that were begun since the hub's start
	Delivered   uint64    `json:"delivered"`             // acknowledged since the hub's start
	Failed      uint64    `json:"failed"`                // attempts that failed since the hub's start
	Expired     uint64    `json:"expired"`               // of those, messages that a puller did not acknowledge in time
	GivenUp     uint64    `json:"given_up"`              // messages that became dead letters since the hub's start
	DeadLetters uint64    `json:"dead_letters"`          // kept as dead letters
	Lost        uint64    `json:"lost,omitempty"`        // removed by retention before they were settled, since the hub's start
	Paused      string    `json:"paused,omitempty"`      // why nothing is delivered; empty while all is well
	// PausedSince is when a pause began that ends by itself, and NextTry when the next delivery is tried, at the earliest.
	PausedSince time.Time `json:"paused_since,omitzero"`
	NextTry     time.Time `json:"next_try,omitzero"`
	// Stuck tells of the ordering key that has failed most often, behind which other messages of it wait; empty while there is none.
	Stuck     string `json:"stuck,omitempty"`
	StuckKeys int    `json:"stuck_keys,omitempty"` // how many such keys there are
	LastError string `json:"last_error,omitempty"`
}

// BrokerStatus is what the metrics tell of the broker.
type BrokerStatus struct {
	Topics        []TopicStatus
	Subscriptions []SubscriptionStatus
	Scheduled     int       // messages that wait for their time
	NextDue       time.Time // of the first of them; zero where there is none
}
