// Package schema is what a topic's messages must look like: Avro and protobuf schemas in the dialects of Google Cloud Pub/Sub
// (https://cloud.google.com/pubsub/docs/schemas).
//
// In the walk of an event it stands before the commit: [Schema.Validate] decides whether a message may be published. It
// is pure; a Schema may be used by any number of goroutines.
package schema

import (
	"errors"
	"fmt"
	"sync"
)

// Limits, as Pub/Sub has them.
const (
	MaxBytes     = 300 << 10 // of a definition
	MaxRevisions = 20        // of one schema
)

// Type is the language of a definition.
type Type string

// The types of schemas.
const (
	Avro     Type = "avro"
	Protobuf Type = "protobuf"
)

// Encoding is the form of a message.
type Encoding string

// The encodings of messages. JSON is Avro's JSON encoding
// (https://avro.apache.org/docs/1.12.0/specification/#json-encoding), or the JSON mapping of protobuf
// (https://protobuf.dev/programming-guides/json/).
const (
	JSON   Encoding = "json"
	Binary Encoding = "binary"
)

// Schema is a parsed definition.
type Schema struct{ definition }

// definition is one of the two languages.
type definition interface {
	validate(Encoding, []byte) error
	// compatible says what keeps messages of one from being read by the other, both ways.
	compatible(before definition) error
}

// heavy is the size in bytes from which messages are validated one at a time: decoded, a hostile one takes fifty times as much.
const heavy = 256 << 10

// Parse reads a definition. An error says where and why it is refused.
func Parse(t Type, text string) (*Schema, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("the definition has %d bytes; at most %d are allowed", len(text), MaxBytes)
	}
	var d definition
	var err error
	switch t {
	case Avro:
		d, err = parseAvro(text)
	case Protobuf:
		d, err = parseProtobuf(text)
	default:
		err = fmt.Errorf("%q is no type of schema: avro and protobuf are", t)
	}
	if err != nil {
		return nil, err
	}
	return &Schema{d}, nil
}

// Validate says what makes data no message of the schema, naming the field; nil where it is one.
func (s *Schema) Validate(e Encoding, data []byte) error {
	if e != JSON && e != Binary {
		return fmt.Errorf("%q is no encoding of messages: json and binary are", e)
	}
	return s.validate(e, data)
}

// Compatible says why a schema cannot be a revision beside before, or nil where it can. For Avro either must be able to read
// what was written with the other; in protobuf fields that are not required may be added and removed, and none changed
// (https://cloud.google.com/pubsub/docs/commit-schema-revision).
func (s *Schema) Compatible(before *Schema) error { return s.compatible(before.definition) }

var errOtherType = errors.New("revisions of a schema have one type: avro does not follow protobuf, nor protobuf avro")

// gate lets heavy messages through one at a time.
type gate struct{ mu sync.Mutex }

func (g *gate) pass(size int) (leave func()) {
	if size < heavy {
		return func() {}
	}
	g.mu.Lock()
	return g.mu.Unlock
}

// fault is what is wrong at one place of a message.
type fault struct{ path, text string }

func (f *fault) Error() string {
	if f.path == "" {
		return f.text
	}
	return f.path + ": " + f.text
}

func wrong(format string, v ...any) error { return &fault{text: fmt.Sprintf(format, v...)} }

// within says that err happened inside of a part.
func within(part string, err error) error {
	var f *fault
	if err == nil || !errors.As(err, &f) {
		return err
	}
	switch {
	case f.path == "":
		f.path = part
	case f.path[0] == '[':
		f.path = part + f.path
	default:
		f.path = part + "." + f.path
	}
	return f
}
