package broker

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shoalrun/shoal/fleet"
)

// What lies on disk, in protobuf's wire format. Unknown fields are skipped; numbers are never reused.
//
//	message Batch {             // one JetStream message of a topic's subject
//	  uint64 base = 1;          // offset of its first record
//	  uint64 count = 2;         // of records; 0 in a marker, which only keeps the topic's place
//	  uint64 bytes = 3;         // that the topic's batches before this one took, ever
//	  uint64 time = 4;          // of the commit, Unix nanoseconds
//	  repeated Record records = 5;
//	}
//	message Record {
//	  string id = 1; string source = 2; string type = 3; string content_type = 4;
//	  bytes data = 5;
//	  repeated Attribute attributes = 6;
//	  string caller = 7;        // the service that published it
//	  string request_id = 8; string traceparent = 9; string tracestate = 10;
//	  string key = 11;          // ordering key
//	  uint64 plain = 12;        // 1: no CloudEvent. Its attributes have any name, and any bytes as values
//	  uint64 not_before = 13;   // Unix nanoseconds; 0: deliver at once
//	  string only = 14;         // the one subscription that gets it; empty: all
//	  uint64 origin = 15;       // 1 + the offset that it had before it was redriven: its id for ever
//	  uint64 time = 16;         // of its commit, Unix nanoseconds, where it is not its batch's
//	  string to = 17;           // the topic of a scheduled message
//	  bytes link = 18;          // the span of the delivery after which it became the dead letter that it was redriven from
//	  uint64 published = 19;    // Unix nanoseconds of its publish, where it waited in the schedule
//	  repeated Attribute schema = 20; // of a CloudEvent: what tells readers by the Pub/Sub API how to read it
//	  string letter = 21;       // the id of the dead letter that it was redriven from
//	  Past past = 22;           // what it went through before it was redriven
//	}
//	message Attribute { string name = 1; string value = 2; }

var errCorrupt = errors.New("what is stored is no record batch")

// record is one message in a topic.
type record struct {
	Event                       // of a message that is no CloudEvent: topic, data, attributes, and what follows them
	caller    string            // who published it
	key       string            // ordering key
	plain     bool              // no CloudEvent
	notBefore time.Time         // zero: at once
	only      string            // the one subscription that gets it; empty: all
	to        string            // the topic of a scheduled message
	origin    uint64            // 1 + its first offset, where it was redriven
	link      fleet.SpanID      // of the delivery that made it a dead letter, where it was redriven
	published time.Time         // of its publish, where it waited in the schedule; zero: its commit
	schema    map[string]string // what tells readers of a CloudEvent by the Pub/Sub API how to read it
	span      traceSpan         // of its publish; not kept
	given     bool              // its id is the publisher's own; not kept
	time      time.Time         // of its batch
	letter    string            // the id of the dead letter that it was redriven from
	past      *past             // what it went through before it was redriven; nil: it never was
}

// batch is one commit group of one topic.
type batch struct {
	base    uint64
	count   uint64
	bytes   uint64
	time    time.Time
	records []*record
	size    int      // encoded
	seq     uint64   // in the stream; not encoded
	matches *matches // of filters; nil without records
	data    []byte   // the encoded batch, where it is ahead of its topic's log
}

// end is the offset after the last record.
func (b *batch) end() uint64 { return b.base + b.count }

func (b *batch) encode(records [][]byte) []byte {
	size := 64
	for _, r := range records {
		size += len(r) + 8
	}
	out := make([]byte, 0, size)
	for i, v := range []uint64{b.base, b.count, b.bytes, uint64(b.time.UnixNano())} {
		out = protowire.AppendTag(out, protowire.Number(i+1), protowire.VarintType)
		out = protowire.AppendVarint(out, v)
	}
	for _, r := range records {
		out = protowire.AppendTag(out, 5, protowire.BytesType)
		out = protowire.AppendBytes(out, r)
	}
	return out
}

// decodeBatch reads a batch; its records only where they are asked for.
func decodeBatch(topic string, data []byte, records bool) (*batch, error) {
	b := &batch{size: len(data), matches: new(matches)}
	err := fields(data, func(f field) error {
		switch f.number {
		case 1:
			b.base = f.number64
		case 2:
			b.count = f.number64
		case 3:
			b.bytes = f.number64
		case 4:
			b.time = time.Unix(0, int64(f.number64)).UTC()
		case 5:
			if !records {
				return errEnough
			}
			r, err := decodeRecord(f.bytes)
			if err != nil {
				return err
			}
			r.Topic = topic
			if r.time.IsZero() {
				r.time = b.time
			}
			b.records = append(b.records, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if records && uint64(len(b.records)) != b.count {
		return nil, fmt.Errorf("%w: %d records where %d should be", errCorrupt, len(b.records), b.count)
	}
	return b, nil
}

// size is what a record takes in memory, roughly.
func (r *record) size() int { return len(r.Data) + 512 }

func (r *record) encode() []byte {
	out := make([]byte, 0, len(r.Data)+256)
	text := func(n protowire.Number, s string) {
		if s != "" {
			out = protowire.AppendString(protowire.AppendTag(out, n, protowire.BytesType), s)
		}
	}
	text(1, r.ID)
	text(2, r.Source)
	text(3, r.Type)
	text(4, r.ContentType)
	if len(r.Data) > 0 {
		out = protowire.AppendBytes(protowire.AppendTag(out, 5, protowire.BytesType), r.Data)
	}
	out = appendAttributes(out, 6, r.Attributes)
	text(7, r.caller)
	text(8, r.RequestID)
	text(9, r.Traceparent)
	text(10, r.Tracestate)
	text(11, r.key)
	if r.plain {
		out = protowire.AppendVarint(protowire.AppendTag(out, 12, protowire.VarintType), 1)
	}
	if !r.notBefore.IsZero() {
		out = protowire.AppendVarint(protowire.AppendTag(out, 13, protowire.VarintType), uint64(r.notBefore.UnixNano()))
	}
	text(14, r.only)
	text(17, r.to)
	if r.origin > 0 {
		out = protowire.AppendVarint(protowire.AppendTag(out, 15, protowire.VarintType), r.origin)
	}
	out = appendAttributes(appendSpan(out, 18, r.link), 20, r.schema)
	if !r.published.IsZero() {
		out = protowire.AppendVarint(protowire.AppendTag(out, 19, protowire.VarintType), uint64(r.published.UnixNano()))
	}
	text(21, r.letter)
	if r.past != nil {
		out = protowire.AppendBytes(protowire.AppendTag(out, 22, protowire.BytesType), r.past.encode())
	}
	return out
}

func appendAttributes(out []byte, n protowire.Number, all map[string]string) []byte {
	for name, value := range all {
		size := protowire.SizeTag(1) + protowire.SizeBytes(len(name)) + protowire.SizeTag(2) + protowire.SizeBytes(len(value))
		out = protowire.AppendVarint(protowire.AppendTag(out, n, protowire.BytesType), uint64(size))
		out = protowire.AppendString(protowire.AppendTag(out, 1, protowire.BytesType), name)
		out = protowire.AppendString(protowire.AppendTag(out, 2, protowire.BytesType), value)
	}
	return out
}

// appendSpan appends a span's id, unless there is none.
func appendSpan(out []byte, n protowire.Number, id fleet.SpanID) []byte {
	if id == (fleet.SpanID{}) {
		return out
	}
	return protowire.AppendBytes(protowire.AppendTag(out, n, protowire.BytesType), id[:])
}

// dated gives an encoded record the time of its commit, unless it has one. It does not change data.
func dated(data []byte, at time.Time) []byte {
	known := false
	_ = fields(data, func(f field) error {
		known = known || f.number == 16
		return nil
	})
	if known {
		return data
	}
	return protowire.AppendVarint(protowire.AppendTag(data[:len(data):len(data)], 16, protowire.VarintType), uint64(at.UnixNano()))
}

func decodeRecord(data []byte) (*record, error) {
	r := new(record)
	texts := [...]*string{1: &r.ID, 2: &r.Source, 3: &r.Type, 4: &r.ContentType,
		7: &r.caller, 8: &r.RequestID, 9: &r.Traceparent, 10: &r.Tracestate, 11: &r.key, 14: &r.only, 17: &r.to, 21: &r.letter}
	err := fields(data, func(f field) (err error) {
		if int(f.number) < len(texts) && texts[f.number] != nil {
			*texts[f.number] = string(f.bytes)
		}
		switch f.number {
		case 5:
			r.Data = f.bytes
		case 12:
			r.plain = f.number64 != 0
		case 13:
			r.notBefore = time.Unix(0, int64(f.number64)).UTC()
		case 15:
			r.origin = f.number64
		case 16:
			r.time = time.Unix(0, int64(f.number64)).UTC()
		case 18:
			copy(r.link[:], f.bytes)
		case 19:
			r.published = time.Unix(0, int64(f.number64)).UTC()
		case 22:
			r.past, err = decodePast(f.bytes)
		}
		if f.number != 6 && f.number != 20 {
			return err
		}
		var attr [3]string
		err = fields(f.bytes, func(f field) error {
			if f.number <= 2 {
				attr[f.number] = string(f.bytes)
			}
			return nil
		})
		if f.number == 6 {
			r.set(attr[1], attr[2])
			return err
		}
		if r.schema == nil {
			r.schema = make(map[string]string)
		}
		r.schema[attr[1]] = attr[2]
		return err
	})
	return r, err
}

// field is one field of a message in wire format: number64 or bytes, as its type says.
type field struct {
	number   protowire.Number
	number64 uint64
	bytes    []byte
}

// errEnough ends fields early, without an error.
var errEnough = errors.New("enough")

// fields calls each for every varint and bytes field of a message.
func fields(data []byte, each func(field) error) error {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return fmt.Errorf("%w: %w", errCorrupt, protowire.ParseError(n))
		}
		size := protowire.ConsumeFieldValue(number, kind, data[n:])
		if size < 0 {
			return fmt.Errorf("%w: %w", errCorrupt, protowire.ParseError(size))
		}
		f := field{number: number}
		switch kind {
		case protowire.VarintType:
			f.number64, _ = protowire.ConsumeVarint(data[n:])
		case protowire.BytesType:
			f.bytes, _ = protowire.ConsumeBytes(data[n:])
		}
		err := each(f)
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
		data = data[n+size:]
	}
	return nil
}
