package broker

import (
	"maps"
	"strings"
	"time"
)

// Message is one message as the Pub/Sub API sees it, of whatever front end it came by.
type Message struct {
	// ID is the decimal offset in its topic: unique there, growing, set by the broker at commit.
	ID          string
	Data        []byte
	Attributes  map[string]string // any bytes in values; names of 1 to 256 bytes. A CloudEvent's are those of its Pub/Sub binding
	OrderingKey string            // at most 1,024 bytes; empty: unordered
	PublishTime time.Time         // of its commit

	Publisher   string // the service that published it
	RequestID   string // of the publish; empty: one is made. Deliveries carry it on
	Traceparent string // W3C trace context of the publish; passed on
	Tracestate  string

	NotBefore time.Time // it is not delivered before; zero: at once
}

// Delivery is one attempt to deliver a message to a puller.
type Delivery struct {
	Message
	AckID   string
	Attempt int // from 1: failed attempts before it, and one
}

// The attributes by which the CloudEvents protocol binding for Pub/Sub carries an event
// (https://github.com/googleapis/google-cloudevents/blob/main/docs/spec/pubsub.md).
const (
	cePrefix       = "ce-"
	ceContentType  = "Content-Type"
	ceSpecVersion  = cePrefix + "specversion"
	ceID, ceSource = cePrefix + "id", cePrefix + "source"
	ceType         = cePrefix + "type"
	specVersion    = "1.0"
	longestName    = 256  // bytes of an attribute's name
	longestKey     = 1024 // bytes of an ordering key
	clientPrefix   = "googclient_"
	reservedPrefix = "goog"
)

// message shows a record to the Pub/Sub API.
func (r *record) message(id string) Message {
	m := Message{
		ID: id, Data: r.Data, Attributes: r.Attributes, OrderingKey: r.key, PublishTime: r.firstTime(),
		Publisher: r.caller, RequestID: r.RequestID, Traceparent: r.Traceparent, Tracestate: r.Tracestate, NotBefore: r.notBefore,
	}
	if r.plain {
		m.Attributes = maps.Clone(r.Attributes)
		return m
	}
	m.Attributes = r.binding()
	return m
}

// bound reports whether a message is a CloudEvent by the Pub/Sub binding.
func (r *record) bound() bool {
	return r.Attributes[ceSpecVersion] == specVersion && r.Attributes[ceID] != "" && r.Attributes[ceSource] != "" && r.Attributes[ceType] != ""
}

// attributes are what filters see.
func (r *record) attributes() map[string]string {
	if r.plain {
		return r.Attributes
	}
	return r.binding()
}

// binding gives an event the attributes of the Pub/Sub binding, and those that tell how to read it.
func (r *record) binding() map[string]string {
	e := &r.Event
	out := make(map[string]string, len(e.Attributes)+8)
	maps.Copy(out, r.schema)
	for name, value := range e.Attributes {
		out[cePrefix+name] = value
	}
	out[ceSpecVersion], out[ceID], out[ceSource], out[ceType] = specVersion, e.ID, e.Source, e.Type
	if e.ContentType != "" {
		out[ceContentType] = e.ContentType
	}
	return out
}

// event shows a record as a CloudEvent. A message that is none gets its offset as id, its publisher as source, its topic as
// type, and as extensions those of its attributes that may be.
func (r *record) event(id string) *Event {
	if !r.plain {
		return &r.Event
	}
	e := r.Event
	e.Attributes = make(map[string]string)
	e.ID, e.Source, e.Type, e.ContentType = id, r.caller, r.Topic, r.Attributes[ceContentType]
	bound := r.bound()
	for name, value := range r.Attributes {
		short, prefixed := strings.CutPrefix(name, cePrefix)
		if prefixed != bound || checkAttribute(short, value) != nil {
			continue
		}
		e.Attributes[short] = value
	}
	if bound {
		e.ID, e.Source, e.Type = r.Attributes[ceID], r.Attributes[ceSource], r.Attributes[ceType]
	}
	for _, name := range []string{"specversion", "id", "source", "type", "datacontenttype"} {
		delete(e.Attributes, name)
	}
	return &e
}

// checkMessage says why m cannot be published, or nil (https://cloud.google.com/pubsub/quotas, "Resource limits").
func (b *Broker) checkMessage(m *Message) *Error {
	if len(m.Data) == 0 && len(m.Attributes) == 0 && m.OrderingKey == "" {
		return invalid("messages", "a message needs data, or at least one attribute")
	}
	if len(m.Data) > b.config.MaxEvent {
		return invalid("messages.data", "its data has %d bytes; at most %d are allowed: store it elsewhere and publish where it lies", len(m.Data), b.config.MaxEvent)
	}
	if len(m.OrderingKey) > longestKey {
		return invalid("messages.ordering_key", "the ordering key has %d bytes; at most %d are allowed", len(m.OrderingKey), longestKey)
	}
	size := 0
	for name, value := range m.Attributes {
		size += len(name) + len(value)
		if name == "" || len(name) > longestName {
			return invalid("messages.attributes", "an attribute's name has %d bytes; 1 to %d are allowed", len(name), longestName)
		}
		if strings.HasPrefix(name, reservedPrefix) && !strings.HasPrefix(name, clientPrefix) {
			return invalid("messages.attributes", "the attribute %q begins with %q, which is reserved", name, reservedPrefix)
		}
	}
	if size > maxMessageAttributes {
		return invalid("messages.attributes", "the attributes take %d bytes; at most %d are allowed: put large values into the data", size, maxMessageAttributes)
	}
	return nil
}
