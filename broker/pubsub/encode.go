package pubsub

import (
	"iter"

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

// encodeDeliveries makes a StreamingPullResponse of deliveries and of what their subscription is like. All field numbers are below 16, so
// that each tag is one byte.
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
	return protowire.AppendBytes(protowire.AppendTag(out, 4, protowire.BytesType), properties)
}

// usually is how many bytes a message has besides its data.
const usually = 256

// appendReceived appends a ReceivedMessage as field 1.
func appendReceived(out []byte, d *broker.Delivery, c *broker.SubscriptionConfig) []byte {
	message := d.ProtoSize(attributes(&d.Message))
	size := 1 + protowire.SizeBytes(len(d.AckID)) + 1 + protowire.SizeBytes(message)
	if c.DeadLetter != nil {
		size += 1 + protowire.SizeVarint(uint64(d.Attempt))
	}
	out = protowire.AppendTag(out, 1, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(size))
	out = protowire.AppendString(protowire.AppendTag(out, 1, protowire.BytesType), d.AckID)
	out = protowire.AppendTag(out, 2, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(message))
	out = d.AppendProto(out, attributes(&d.Message))
	if c.DeadLetter != nil {
		out = protowire.AppendTag(out, 3, protowire.VarintType)
		out = protowire.AppendVarint(out, uint64(d.Attempt))
	}
	return out
}

// attributes are a message's, with its delivery's trace where the official clients look for it when they are asked to trace.
func attributes(m *broker.Message) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for name, value := range m.Attributes {
			if name == broker.ClientTraceparent || name == broker.ClientTracestate {
				continue
			}
			if !yield(broker.Legible(name), broker.Legible(value)) {
				return
			}
		}
		if yield(broker.ClientTraceparent, m.Traceparent) && m.Tracestate != "" {
			yield(broker.ClientTracestate, m.Tracestate)
		}
	}
}

func appendBool(out []byte, number protowire.Number, value bool) []byte {
	if !value {
		return out
	}
	return append(protowire.AppendTag(out, number, protowire.VarintType), 1)
}
