package broker

import (
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/shoalrun/shoal/fleet"
)

// TopicConfig is a topic as a resource. The zero value of each field means the default that is named.
type TopicConfig struct {
	Name       string            `json:"name"`             // 1 to 255 bytes: letters, digits and `-._~+%`
	Owner      string            `json:"owner,omitempty"`  // the service that created it, or [fleet.Operator]
	Labels     map[string]string `json:"labels,omitempty"` // at most 64
	Durability fleet.Durability  `json:"durability,omitempty"`
	// Retention is the age at which messages are removed, delivered or not: 10 minutes to 31 days. 0: Config.Retention.
	Retention time.Duration `json:"retention,omitempty"`
	Ordering  string        `json:"ordering,omitempty"` // as in [fleet.Topic]
	Delay     time.Duration `json:"delay,omitempty"`    // between publish and delivery
	Schema    *TopicSchema  `json:"schema,omitempty"`   // nil: anything may be published

	Declared string `json:"-"` // where a manifest names it, as FILE:LINE; such a topic can be neither changed nor deleted here
}

// TopicSchema says which schema messages must obey. The broker keeps it; Config.Check obeys it.
type TopicSchema struct {
	Name          string `json:"name"`
	Binary        bool   `json:"binary,omitempty"` // encoding BINARY; false: JSON
	FirstRevision string `json:"first_revision,omitempty"`
	LastRevision  string `json:"last_revision,omitempty"`
}

// SubscriptionConfig is a subscription as a resource. The zero value of each field means the default that is named.
type SubscriptionConfig struct {
	// Name is the API's id: 3 to 255 bytes, letters, digits and `-._~+%`, beginning with a letter. That of a manifest's
	// subscription of service S to topic T is `S.T`.
	Name   string            `json:"name"`
	Topic  string            `json:"topic"`           // immutable. Empty: the topic was deleted
	Owner  string            `json:"owner,omitempty"` // the service that created it, or [fleet.Operator]
	Labels map[string]string `json:"labels,omitempty"`

	AckDeadline time.Duration `json:"ack_deadline,omitempty"` // 10 to 600 s; 10 s
	Ordering    bool          `json:"ordering,omitempty"`     // immutable
	ExactlyOnce bool          `json:"exactly_once,omitempty"` //
	Filter      string        `json:"filter,omitempty"`       // immutable; at most 256 bytes
	// MinBackoff and MaxBackoff are the retry policy: 0 to 600 s. Both 0: a message that failed is due again at once.
	MinBackoff time.Duration     `json:"min_backoff,omitempty"`
	MaxBackoff time.Duration     `json:"max_backoff,omitempty"`
	DeadLetter *DeadLetterPolicy `json:"dead_letter,omitempty"` // nil: a message is tried again for ever

	RetainAcked bool          `json:"retain_acked,omitempty"` // the quota of the topic does not remove what is acknowledged
	Retention   time.Duration `json:"retention,omitempty"`    // of what is not acknowledged: 10 minutes to 31 days; 7 days
	Expiration  time.Duration `json:"expiration,omitempty"`   // it is removed when unused for as long: at least 1 day; 31 days. Negative: never
	FromStart   bool          `json:"from_start,omitempty"`   // a new one begins at the oldest message that is kept
	Delay       time.Duration `json:"delay,omitempty"`        // between publish and delivery

	Push        *PushConfig `json:"push,omitempty"` // nil: pull
	Concurrency int         `json:"concurrency,omitempty"`
	Detached    bool        `json:"detached,omitempty"` // it keeps its name and nothing else; output only

	Declared string `json:"-"` // where a manifest names it, as FILE:LINE; such a subscription can be neither changed nor deleted here
	Pull     bool   `json:"-"` // of a manifest's that pushes: it may be pulled, too
}

// DeadLetterPolicy forwards messages that keep failing to a topic.
type DeadLetterPolicy struct {
	Topic    string `json:"topic,omitempty"` // empty: they are kept for the operator
	Attempts int    `json:"attempts"`        // 5 to 100; 5
}

// PushConfig is where and how messages are pushed.
type PushConfig struct {
	Endpoint   string            `json:"endpoint"` // http://SERVICE/PATH, or any URL that the outbound proxy reaches
	Attributes map[string]string `json:"attributes,omitempty"`
	Format     string            `json:"format,omitempty"`    // [fleet.FormatPubSub], also where empty, or [fleet.FormatCloudEvents]
	Unwrapped  bool              `json:"unwrapped,omitempty"` // the body is the data alone (no_wrapper)
	Metadata   bool              `json:"metadata,omitempty"`  // and the attributes are headers (write_metadata)
	OIDC       *OIDC             `json:"oidc,omitempty"`
}

// OIDC asks for a token with each push.
type OIDC struct {
	Email    string `json:"email"`    // service_account_email: the token's `email`
	Audience string `json:"audience"` // empty: the endpoint
}

// Limits and defaults of resources (https://cloud.google.com/pubsub/docs/reference/rest).
const (
	minAckDeadline  = 10 * time.Second
	maxAckDeadline  = 600 * time.Second
	minRetention    = 10 * time.Minute
	maxRetention    = 31 * 24 * time.Hour
	weekRetention   = 7 * 24 * time.Hour
	minExpiration   = 24 * time.Hour
	monthExpiration = 31 * 24 * time.Hour
	maxBackoff      = 600 * time.Second
	minAttempts     = 5
	maxAttempts     = 100
	maxFilter       = 256 // bytes
	maxLabels       = 64
	defaultMin      = 10 * time.Second // of a retry policy that names none
)

// check completes c, and says what is wrong with it.
func (c *TopicConfig) check() error {
	if err := checkTopic(c.Name); err != nil {
		return invalid("name", "%v", err)
	}
	if err := checkLabels("labels", c.Labels); err != nil {
		return err
	}
	switch c.Durability {
	case "", fleet.DurabilityDisk, fleet.DurabilityOS, fleet.DurabilityMemory:
	default:
		return invalid("durability", "durability %q: use disk, os or memory", c.Durability)
	}
	if _, err := fleet.ParseOrdering(c.Ordering); err != nil {
		return invalid("ordering", "ordering %q: %v", c.Ordering, err)
	}
	return between("message_retention_duration", c.Retention, minRetention, maxRetention)
}

func checkLabels(field string, labels map[string]string) error {
	if len(labels) > maxLabels {
		return invalid(field, "%d labels; at most %d are allowed", len(labels), maxLabels)
	}
	for name, value := range labels {
		first, _ := utf8.DecodeRuneInString(name)
		if !unicode.IsLetter(first) || !isLabel(name) || !isLabel(value) {
			return invalid(field, "label %q: %q: names and values have at most 63 lower-case letters, digits, _ and -; names begin with a letter", name, value)
		}
	}
	return nil
}

// isLabel reports whether a label may have that in its name or value (https://cloud.google.com/pubsub/docs/create-and-manage-labels).
func isLabel(text string) bool {
	for _, c := range text {
		if unicode.ToLower(c) != c || !unicode.IsLetter(c) && !unicode.IsDigit(c) && c != '_' && c != '-' {
			return false
		}
	}
	return utf8.RuneCountInString(text) <= 63 && utf8.ValidString(text)
}

// between allows 0, and low to high.
func between(field string, d, low, high time.Duration) error {
	if d != 0 && (d < low || d > high) {
		return invalid(field, "%s is %v; %v to %v are allowed", field, d, low, high)
	}
	return nil
}

// check completes c, and says what is wrong with it. That its topic exists is for others to say.
func (c *SubscriptionConfig) check() error {
	if err := checkID(c.Name); err != nil {
		return err
	}
	set(&c.AckDeadline, minAckDeadline)
	set(&c.Retention, weekRetention)
	set(&c.Expiration, monthExpiration)
	if c.MinBackoff > 0 && c.MaxBackoff == 0 {
		c.MaxBackoff = max(c.MinBackoff, maxBackoff)
	}
	for _, err := range []error{
		checkLabels("labels", c.Labels),
		between("ack_deadline_seconds", c.AckDeadline, minAckDeadline, maxAckDeadline),
		between("message_retention_duration", c.Retention, minRetention, maxRetention),
		between("retry_policy.minimum_backoff", c.MinBackoff, 0, maxBackoff),
		between("retry_policy.maximum_backoff", c.MaxBackoff, 0, maxBackoff),
		c.checkRest(),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *SubscriptionConfig) checkRest() error {
	if c.MinBackoff > c.MaxBackoff {
		return invalid("retry_policy.minimum_backoff", "the minimum backoff %v is longer than the maximum %v", c.MinBackoff, c.MaxBackoff)
	}
	if c.Expiration > 0 && c.Expiration < minExpiration {
		return invalid("expiration_policy.ttl", "the expiration is %v; at least %v is allowed", c.Expiration, minExpiration)
	}
	if len(c.Filter) > maxFilter {
		return invalid("filter", "the filter has %d bytes; at most %d are allowed", len(c.Filter), maxFilter)
	}
	if d := c.DeadLetter; d != nil {
		set(&d.Attempts, minAttempts)
		if d.Attempts < minAttempts || d.Attempts > maxAttempts {
			return invalid("dead_letter_policy.max_delivery_attempts", "max_delivery_attempts is %d; %d to %d are allowed", d.Attempts, minAttempts, maxAttempts)
		}
	}
	if c.Push != nil {
		if _, err := c.Push.target(); err != nil {
			return invalid("push_config.push_endpoint", "%v", err)
		}
	}
	return nil
}

// checkID says why id can name no subscription or snapshot.
func checkID(id string) error {
	if len(id) < 3 || len(id) > 255 {
		return invalid("name", "the name %q has %d bytes; 3 to 255 are allowed", id, len(id))
	}
	if c := id[0] | 0x20; c < 'a' || c > 'z' {
		return invalid("name", "the name %q must begin with a letter", id)
	}
	if err := checkTopic(id); err != nil {
		return invalid("name", "the name %q: letters, digits and -._~+%% are allowed", id)
	}
	return nil
}
