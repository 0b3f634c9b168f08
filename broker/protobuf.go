package broker

import (
	"maps"
	"mime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// protoMessage appends fields of a message in protobuf's wire format.
type protoMessage []byte

func (m *protoMessage) bytes(field protowire.Number, value []byte) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, field, protowire.BytesType), value)
}

func (m *protoMessage) text(field protowire.Number, value string) {
	if value != "" {
		m.bytes(field, []byte(Legible(value)))
	}
}

func (m *protoMessage) number(field protowire.Number, value uint64) {
	if value != 0 {
		*m = protowire.AppendVarint(protowire.AppendTag(*m, field, protowire.VarintType), value)
	}
}

// entry appends an entry of a map from strings.
func (m *protoMessage) entry(field protowire.Number, key string, value []byte) {
	var e protoMessage
	e.text(1, key)
	e.bytes(2, value)
	m.bytes(field, e)
}

// timestamp is a google.protobuf.Timestamp.
func timestamp(t time.Time) (m protoMessage) {
	m.number(1, uint64(t.Unix()))
	m.number(2, uint64(t.Nanosecond()))
	return m
}

// Fields of io.cloudevents.v1.CloudEvent and of its CloudEventAttributeValue
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/cloudevents.proto).
const (
	eventAttributes = 5
	eventBinary     = 6
	eventText       = 7
	eventProto      = 8
	valueString     = 3
	valueURI        = 5
	valueTimestamp  = 7
)

// eventMessage is an event in its protobuf format.
func eventMessage(e *Event) (out protoMessage) {
	for i, value := range []string{e.ID, e.Source, specVersion, e.Type} {
		out.text(protowire.Number(i+1), value)
	}
	attributes := maps.Clone(e.Attributes)
	if e.ContentType != "" {
		if attributes == nil {
			attributes = make(map[string]string)
		}
		attributes["datacontenttype"] = e.ContentType
	}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		out.entry(eventAttributes, name, attributeValue(name, attributes[name]))
	}
	eventData(&out, e)
	return out
}

func attributeValue(name, value string) (out protoMessage) {
	at, err := time.Parse(time.RFC3339Nano, value)
	switch {
	case name == "time" && err == nil:
		out.bytes(valueTimestamp, timestamp(at))
	case name == "dataschema":
		out.bytes(valueURI, []byte(Legible(value)))
	default:
		out.bytes(valueString, []byte(Legible(value))) // also an empty one
	}
	return out
}

// eventData writes the data where the format wants them: text as text, a protobuf message whose type is known (by `dataschema`) as an
// Any, and others as bytes (protobuf-format.md, section 3).
func eventData(out *protoMessage, e *Event) {
	kind, _, _ := mime.ParseMediaType(e.ContentType)
	schema := e.Attributes["dataschema"]
	switch {
	case len(e.Data) == 0:
	case isProtobuf(kind) && schema != "":
		var value protoMessage
		value.text(1, schema)
		value.bytes(2, e.Data)
		out.bytes(eventProto, value)
	case isText(kind) && utf8.Valid(e.Data):
		out.bytes(eventText, e.Data)
	default:
		out.bytes(eventBinary, e.Data)
	}
}

func isProtobuf(kind string) bool {
	return kind == "application/protobuf" || kind == "application/x-protobuf" || kind == "application/vnd.google.protobuf"
}

// isText reports whether a media type is of text.
func isText(kind string) bool {
	return strings.HasPrefix(kind, "text/") || kind == "application/json" || strings.HasSuffix(kind, "+json") ||
		kind == "application/xml" || strings.HasSuffix(kind, "+xml")
}
