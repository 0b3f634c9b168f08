package pubsub

import (
	"iter"
	"strings"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shoalrun/shoal/broker"
)

// encoded is a message of the API as its bytes. What streams deliver is encoded without the generated types, whose objects and maps cost
// several times what the bytes do.
type encoded []byte

// codec is gRPC's own, and takes what is encoded already.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(encoded); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// encodeDeliveries makes a StreamingPullResponse of deliveries and of what their subscription is like. Field numbers are those of
// google/pubsub/v1/pubsub.proto; all are below 16, so that each tag is one byte.
func encodeDeliveries(got []broker.Delivery, c *broker.SubscriptionConfig) encoded {
	room := 16
	for i := range got {
		room += len(got[i].Data) + usually
	}
	out := make([]byte, 0, room)
	for i := range got {
		out = appendReceived(out, &got[i], c)
	}
	var properties []byte
	properties = appendBool(properties, 1, c.ExactlyOnce)
	properties = appendBool(properties, 2, c.Ordering)
	return appendField(out, 4, properties)
}

// usually is how many bytes a message has besides its data.
const usually = 256

// appendReceived appends a ReceivedMessage as field 1.
func appendReceived(out []byte, d *broker.Delivery, c *broker.SubscriptionConfig) []byte {
	message := messageSize(d)
	size := fieldSize(len(d.AckID)) + fieldSize(message)
	if c.DeadLetter != nil {
		size += 1 + protowire.SizeVarint(uint64(d.Attempt))
	}
	out = protowire.AppendTag(out, 1, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(size))
	out = appendField(out, 1, d.AckID)
	out = protowire.AppendTag(out, 2, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(message))
	out = appendMessage(out, d)
	if c.DeadLetter != nil {
		out = protowire.AppendTag(out, 3, protowire.VarintType)
		out = protowire.AppendVarint(out, uint64(d.Attempt))
	}
	return out
}

// appendMessage appends what is in a PubsubMessage.
func appendMessage(out []byte, d *broker.Delivery) []byte {
	out = appendField(out, 1, d.Data)
	for name, value := range attributes(&d.Message) {
		out = protowire.AppendTag(out, 2, protowire.BytesType)
		out = protowire.AppendVarint(out, uint64(fieldSize(len(name))+fieldSize(len(value))))
		out = appendField(out, 1, name)
		out = appendField(out, 2, value)
	}
	out = appendField(out, 3, d.ID)
	out = protowire.AppendTag(out, 4, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(timeSize(d)))
	out = protowire.AppendTag(out, 1, protowire.VarintType)
	out = protowire.AppendVarint(out, uint64(d.PublishTime.Unix()))
	out = protowire.AppendTag(out, 2, protowire.VarintType)
	out = protowire.AppendVarint(out, uint64(d.PublishTime.Nanosecond()))
	if d.OrderingKey != "" {
		out = appendField(out, 5, legible(d.OrderingKey))
	}
	return out
}

func messageSize(d *broker.Delivery) int {
	n := fieldSize(len(d.Data)) + fieldSize(len(d.ID)) + fieldSize(timeSize(d))
	for name, value := range attributes(&d.Message) {
		n += fieldSize(fieldSize(len(name)) + fieldSize(len(value)))
	}
	if d.OrderingKey != "" {
		n += fieldSize(len(legible(d.OrderingKey)))
	}
	return n
}

// attributes are a message's, with its delivery's trace where the official clients look for it when they are asked to trace.
func attributes(m *broker.Message) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for name, value := range m.Attributes {
			if name == broker.ClientTraceparent || name == broker.ClientTracestate {
				continue
			}
			if !yield(legible(name), legible(value)) {
				return
			}
		}
		if yield(broker.ClientTraceparent, m.Traceparent) && m.Tracestate != "" {
			yield(broker.ClientTracestate, m.Tracestate)
		}
	}
}

// legible is text as protobuf's strings must be: valid UTF-8. What other ways in let pass would make a client drop the whole answer, again and
// again.
func legible(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func timeSize(d *broker.Delivery) int {
	return 2 + protowire.SizeVarint(uint64(d.PublishTime.Unix())) + protowire.SizeVarint(uint64(d.PublishTime.Nanosecond()))
}

// fieldSize is that of a field of n bytes, its tag included.
func fieldSize(n int) int { return 1 + protowire.SizeBytes(n) }

func appendField[T string | []byte | encoded](out []byte, number protowire.Number, value T) []byte {
	out = protowire.AppendTag(out, number, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(len(value)))
	return append(out, value...)
}

func appendBool(out []byte, number protowire.Number, value bool) []byte {
	if !value {
		return out
	}
	return append(protowire.AppendTag(out, number, protowire.VarintType), 1)
}
