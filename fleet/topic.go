package fleet

import (
	"fmt"
	"regexp"
	"strings"
)

// Topic is what a publisher's manifest declares of a topic beyond its name. The zero value of a field
// means that it is not declared: another publisher's word holds, or else the default.
type Topic struct {
	Name string `json:"name"`
	Line int    `json:"line,omitempty"` // of the manifest
	// Durability says what an acknowledged message survives. Default: [DurabilityDisk].
	Durability Durability `json:"durability,omitempty"`
	// Retention is the age at which messages are removed, delivered or not. Default: 7 days.
	Retention Duration `json:"retention,omitempty"`
	// Ordering says where a message has its ordering key, when its publisher names none: see
	// [ParseOrdering]. Empty: nowhere.
	Ordering string `json:"ordering,omitempty"`
	// Delay is how long after its publish a message is delivered first, by every subscription.
	Delay Duration `json:"delay,omitempty"`
}

// Durability is what a message that was acknowledged to its publisher survives.
type Durability string

// The classes of durability.
const (
	DurabilityDisk   Durability = "disk"   // a power cut: written and fsynced; also where empty
	DurabilityOS     Durability = "os"     // the death of the hub: written, left to the operating system to sync
	DurabilityMemory Durability = "memory" // neither: lost when the hub stops
)

// OrderingKey says where a message has its ordering key; one of the two is set, or none.
type OrderingKey struct {
	Attribute string // the attribute whose value it is
	// Path leads from the top of a message's JSON to the value: a member's name each, or in an array the
	// decimal index.
	Path []string
}

// Steps of a singular query of JSONPath (RFC 9535 section 2.3.5.1): a member or an index.
const orderingSteps = `\.([A-Za-z_][A-Za-z0-9_-]*)|\[([0-9]{1,6})\]|\['([^'\\]+)'\]`

// ParseOrdering reads where the ordering key is: `attribute:NAME`, or `json:PATH` for a value in a
// message's JSON, such as `json:$.customer.id`, `json:$.items[0]` or `json:$['a b']`. Empty text is the zero
// value. An error is a sentence that says what would be right.
func ParseOrdering(text string) (OrderingKey, error) {
	kind, rest, _ := strings.Cut(text, ":")
	switch {
	case text == "":
		return OrderingKey{}, nil
	case kind == "attribute" && rest != "" && len(rest) <= 256 && !strings.ContainsAny(rest, " \t\n"):
		return OrderingKey{Attribute: rest}, nil
	case kind != "json":
		return OrderingKey{}, fmt.Errorf("it takes `attribute:NAME` or `json:PATH`, such as `json:$.customer.id`")
	case !regexp.MustCompile(`^\$(` + orderingSteps + `)+$`).MatchString(rest):
		return OrderingKey{}, fmt.Errorf("a path leads from `$` over members and indexes to one value, such as `$.customer.id`, `$.items[0]` or `$['a b']`")
	}
	var k OrderingKey
	for _, step := range regexp.MustCompile(orderingSteps).FindAllStringSubmatch(rest, -1) {
		k.Path = append(k.Path, step[1]+step[2]+step[3])
	}
	return k, nil
}

// Merge returns what two publishers declare of one topic, and the options in which they differ, by the
// names that manifests have for them; t's word holds there.
func (t Topic) Merge(o Topic) (both Topic, clashes []string) {
	take(&t.Durability, o.Durability, "durability", &clashes)
	take(&t.Retention, o.Retention, "retention", &clashes)
	take(&t.Ordering, o.Ordering, "ordering", &clashes)
	take(&t.Delay, o.Delay, "delay", &clashes)
	return t, clashes
}

func take[T comparable](mine *T, other T, name string, clashes *[]string) {
	var none T
	if *mine == none {
		*mine = other
	}
	if other != none && *mine != other {
		*clashes = append(*clashes, name)
	}
}

// Subscription is one entry of `subscribes`: how deliveries of a topic reach the service. Zero values
// mean the broker's defaults.
type Subscription struct {
	Topic string `json:"topic"`
	Line  int    `json:"line,omitempty"` // of the manifest

	// Method and Path are of the request that a delivery is; empty where nothing is pushed.
	Method string `json:"method,omitempty"` // POST
	Path   string `json:"path,omitempty"`
	Port   uint16 `json:"port,omitempty"` // 0: the default port
	// GRPC: the push is a unary call of gRPC, and Path its method, /package.Service/Method.
	GRPC bool `json:"grpc,omitempty"`
	// Format is what a push holds. Default: [FormatCloudEvents], or [FormatData] by gRPC.
	Format string `json:"format,omitempty"`
	Pull   bool   `json:"pull,omitempty"` // the service may pull, besides or instead of push

	Ordering    bool     `json:"ordering,omitempty"`     // messages of one ordering key are delivered one after the other
	ExactlyOnce bool     `json:"exactly_once,omitempty"` // an acknowledgement is answered after its commit
	Filter      string   `json:"filter,omitempty"`       // in Pub/Sub's filter language; empty: everything
	Attempts    int      `json:"attempts,omitempty"`     // before a message is dead-lettered, 1 to 100; default: 20
	MinBackoff  Duration `json:"min_backoff,omitempty"`  // before the second attempt; default: 100 ms
	MaxBackoff  Duration `json:"max_backoff,omitempty"`  // between two attempts; default: 30 s
	DeadLetter  string   `json:"dead_letter,omitempty"`  // topic to which a message that used up its attempts goes; empty: it is kept as a dead letter
	AckDeadline Duration `json:"ack_deadline,omitempty"` // how long one attempt may take; default: 60 s
	Concurrency int      `json:"concurrency,omitempty"`  // pushes at once, at most; default: 16
	FromStart   bool     `json:"from_start,omitempty"`   // a new subscription begins at the oldest message that is kept
	Delay       Duration `json:"delay,omitempty"`        // between publish and first delivery
}

// Formats of a push.
const (
	FormatCloudEvents = "cloudevents" // CloudEvents 1.0 in binary mode; by gRPC the message io.cloudevents.v1.CloudEvent
	FormatPubSub      = "pubsub"      // the JSON envelope of Pub/Sub's push; by gRPC the message google.pubsub.v1.PubsubMessage
	FormatData        = "data"        // by gRPC alone: the data are the method's own request message
)
