package broker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Event is one event as the broker takes and delivers it: a CloudEvent 1.0
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md) and the topic it goes to.
type Event struct {
	Topic string // 1 to 255 bytes: letters, digits and `-._~+%`

	ID     string // `id`; empty: one is made
	Source string // `source`, a URI reference; empty: the caller's name
	Type   string // `type`; empty: the topic
	// ContentType is `datacontenttype`, a media type (RFC 2046), or empty.
	ContentType string
	Data        []byte
	// Attributes holds the other context attributes (`subject`, `time`, `dataschema`, extensions) in
	// the canonical string form of the specification's section 3.1.
	Attributes map[string]string

	// OrderingKey: messages of one key are delivered in order to subscriptions that ask for it; empty: unordered. At most
	// 1,024 bytes. The extension attribute `partitionkey` is taken where it is empty.
	OrderingKey string    `json:",omitempty"`
	NotBefore   time.Time `json:",omitzero"` // it is not delivered before; zero: at once

	RequestID   string // of the publish; empty: one is made. Deliveries carry it on
	Traceparent string // W3C trace context of the publish; passed on
	Tracestate  string
}

// complete fills in what the publisher left out.
func (e *Event) complete(caller string, now time.Time) {
	if e.ID == "" {
		e.ID = newID()
		if e.Attributes["time"] == "" {
			e.set("time", now.UTC().Format(time.RFC3339Nano))
		}
	}
	set(&e.Source, caller)
	set(&e.Type, e.Topic)
	if e.RequestID == "" {
		e.RequestID = newID()
	}
	set(&e.OrderingKey, e.Attributes["partitionkey"])
}

func (e *Event) set(name, value string) {
	if e.Attributes == nil {
		e.Attributes = make(map[string]string)
	}
	e.Attributes[name] = value
}

// check says what makes e no CloudEvent, or nil. Its words name the attribute.
func (e *Event) check() error {
	if err := checkURI("source", e.Source); err != nil {
		return err
	}
	if e.ContentType != "" {
		if _, _, err := mime.ParseMediaType(e.ContentType); err != nil {
			return fmt.Errorf("datacontenttype %q is no media type: %w", e.ContentType, err)
		}
	}
	if len(e.OrderingKey) > longestKey {
		return fmt.Errorf("the ordering key has %d bytes; at most %d are allowed", len(e.OrderingKey), longestKey)
	}
	size := len(e.ID) + len(e.Source) + len(e.Type) + len(e.ContentType)
	for name, value := range e.Attributes {
		size += len(name) + len(value)
		if err := checkAttribute(name, value); err != nil {
			return err
		}
	}
	for name, value := range map[string]string{"id": e.ID, "type": e.Type} {
		if err := checkText(name, value); err != nil {
			return err
		}
	}
	if size > maxAttributes {
		return fmt.Errorf("the attributes take %d bytes; at most %d are allowed: put large values into the data", size, maxAttributes)
	}
	return nil
}

// checkAttribute checks the name and value of an attribute (specification, sections 3.1 and 3.2).
func checkAttribute(name, value string) error {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fmt.Errorf("attribute name %q: use lower-case letters and digits only", name)
		}
	}
	if slices.Contains([]string{"", "data", "specversion", "id", "source", "type"}, name) {
		return fmt.Errorf("%q cannot name an attribute", name)
	}
	if name == "time" {
		if _, err := time.Parse(time.RFC3339Nano, value); err != nil {
			return fmt.Errorf("time %q is no RFC 3339 timestamp, such as 2026-01-02T15:04:05Z", value)
		}
	}
	if name == "dataschema" {
		return checkURI(name, value)
	}
	if name == "subject" && value == "" {
		return errors.New("subject is empty: leave it out, or give it a value")
	}
	return checkText(name, value)
}

func checkURI(name, value string) error {
	if _, err := url.Parse(value); err != nil {
		return fmt.Errorf("%s %q is no URI reference: %w", name, value, err)
	}
	return checkText(name, value)
}

func checkText(name, value string) error {
	if !utf8.ValidString(value) {
		return fmt.Errorf("%s is not valid UTF-8", name)
	}
	for _, r := range value {
		if r < 0x20 || r >= 0x7f && r <= 0x9f {
			return fmt.Errorf("%s holds the control character %U", name, r)
		}
	}
	return nil
}

// checkTopic says why name cannot be a topic's name, or nil.
func checkTopic(name string) error {
	if name == "" {
		return errors.New("the path names no topic: POST http://events/TOPIC, or $EVENTS_URL/TOPIC on the host")
	}
	if len(name) > 255 {
		return fmt.Errorf("the topic's name has %d bytes; at most 255 are allowed", len(name))
	}
	for _, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("-._~+%", c) {
			return fmt.Errorf("the topic's name %q holds %q: letters, digits and -._~+%% are allowed", name, c)
		}
	}
	return nil
}

// idempotencyKey names an event for its receivers: the same for every delivery of it, and for a second
// publish of it, since source and id identify an event (specification, section 3.1.1).
func (e *Event) idempotencyKey() string {
	h := sha256.New()
	for _, s := range []string{e.Topic, e.Source, e.ID} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
