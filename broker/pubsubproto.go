package broker

import (
	"iter"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Legible is text as protobuf's strings must be: valid UTF-8. What other ways in let pass would make whoever reads it drop the whole message,
// again and again.
func Legible(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// AppendProto appends m as a google.pubsub.v1.PubsubMessage in protobuf's wire format, with these attributes, which are [Legible], in the place of its own.
// The generated types, whose objects and maps cost several times what the bytes do, are not needed for that. Field numbers are those of
// google/pubsub/v1/pubsub.proto; all are below 16, so that each tag is one byte.
func (m *Message) AppendProto(out []byte, attributes iter.Seq2[string, string]) []byte {
	if len(m.Data) > 0 {
		out = protowire.AppendBytes(protowire.AppendTag(out, 1, protowire.BytesType), m.Data)
	}
	for name, value := range attributes {
		out = protowire.AppendTag(out, 2, protowire.BytesType)
		out = protowire.AppendVarint(out, uint64(fieldSize(len(name))+fieldSize(len(value))))
		out = appendText(out, 1, name)
		out = appendText(out, 2, value)
	}
	out = appendText(out, 3, m.ID)
	out = protowire.AppendTag(out, 4, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(m.timeSize()))
	out = protowire.AppendTag(out, 1, protowire.VarintType)
	out = protowire.AppendVarint(out, uint64(m.PublishTime.Unix()))
	out = protowire.AppendTag(out, 2, protowire.VarintType)
	out = protowire.AppendVarint(out, uint64(m.PublishTime.Nanosecond()))
	if m.OrderingKey != "" {
		out = appendText(out, 5, Legible(m.OrderingKey))
	}
	return out
}

// ProtoSize is how many bytes [Message.AppendProto] appends.
func (m *Message) ProtoSize(attributes iter.Seq2[string, string]) int {
	n := fieldSize(len(m.ID)) + fieldSize(m.timeSize())
	if len(m.Data) > 0 {
		n += fieldSize(len(m.Data))
	}
	for name, value := range attributes {
		n += fieldSize(fieldSize(len(name)) + fieldSize(len(value)))
	}
	if m.OrderingKey != "" {
		n += fieldSize(len(Legible(m.OrderingKey)))
	}
	return n
}

// timeSize is that of a google.protobuf.Timestamp.
func (m *Message) timeSize() int {
	return 2 + protowire.SizeVarint(uint64(m.PublishTime.Unix())) + protowire.SizeVarint(uint64(m.PublishTime.Nanosecond()))
}

// legibleAttributes are a message's own, as protobuf can have them.
func (m *Message) legibleAttributes() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for name, value := range m.Attributes {
			if !yield(Legible(name), Legible(value)) {
				return
			}
		}
	}
}

// fieldSize is that of a field of n bytes, its tag included.
func fieldSize(n int) int { return 1 + protowire.SizeBytes(n) }

func appendText(out []byte, number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(out, number, protowire.BytesType), value)
}
