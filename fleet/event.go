package fleet

import "time"

// TopicStatus is the operator's view of one topic.
type TopicStatus struct {
	Name       string    `json:"name"`
	Publishers []string  `json:"publishers,omitempty"` // services that declare it, sorted
	Published  uint64    `json:"published"`            // events ever accepted
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
	Delivered   uint64    `json:"delivered"`             // acknowledged since the hub's start
	Failed      uint64    `json:"failed"`                // attempts that failed since the hub's start
	DeadLetters uint64    `json:"dead_letters"`          // kept as dead letters
	Lost        uint64    `json:"lost,omitempty"`        // removed by retention before they were settled, since the hub's start
	Paused      string    `json:"paused,omitempty"`      // why nothing is delivered; empty while all is well
	// Stuck tells of the ordering key that has failed most often, behind which other messages of it wait; empty while there is none.
	Stuck     string `json:"stuck,omitempty"`
	LastError string `json:"last_error,omitempty"`
}
