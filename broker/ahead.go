package broker

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protowire"
)

// What lies on disk, as the batches do.
//
//	message Ahead {
//	  uint64 number = 1;        // grows from message to message, over both streams
//	  repeated Entry entries = 2;
//	}
//	message Entry {
//	  string topic = 1;
//	  bytes batch = 2;          // absent: what was written of the topic before this message is void
//	}

// ahead is one message of the log.
type ahead struct {
	number  uint64
	stream  int
	entries []entry
}

type entry struct {
	topic string
	batch *batch // nil: what came before is void
}

// read reads the messages of one stream.
func (w *wal) read(ctx context.Context, stream int, out []*ahead) ([]*ahead, error) {
	err := w.engine.each(ctx, w.streams[stream].events, w.streams[stream].prefix, func(m *jetstream.RawStreamMsg) error {
		a := &ahead{stream: stream}
		w.bytes[stream] += len(m.Data)
		out = append(out, a)
		return fields(m.Data, func(f field) error {
			switch f.number {
			case 1:
				a.number = f.number64
			case 2:
				e, err := decodeEntry(f.bytes)
				a.entries = append(a.entries, e)
				return err
			}
			return nil
		})
	})
	return out, err
}

func decodeEntry(data []byte) (e entry, err error) {
	err = fields(data, func(f field) (err error) {
		switch f.number {
		case 1:
			e.topic = string(f.bytes)
		case 2:
			e.batch, err = decodeBatch("", f.bytes, false)
			if err == nil {
				e.batch.data = f.bytes
			}
		}
		return err
	})
	return e, err
}

// encodeAhead encodes a message; a batch that is nil makes what was written of its topic before void.
func encodeAhead(number uint64, topics []string, batches [][]byte) []byte {
	size := 16
	for i := range topics {
		size += len(topics[i]) + len(batches[i]) + 24
	}
	out := make([]byte, 0, size)
	out = protowire.AppendVarint(protowire.AppendTag(out, 1, protowire.VarintType), number)
	for i, topic := range topics {
		n := protowire.SizeTag(1) + protowire.SizeBytes(len(topic))
		if batches[i] != nil {
			n += protowire.SizeTag(2) + protowire.SizeBytes(len(batches[i]))
		}
		out = protowire.AppendVarint(protowire.AppendTag(out, 2, protowire.BytesType), uint64(n))
		out = protowire.AppendString(protowire.AppendTag(out, 1, protowire.BytesType), topic)
		if batches[i] != nil {
			out = protowire.AppendBytes(protowire.AppendTag(out, 2, protowire.BytesType), batches[i])
		}
	}
	return out
}
