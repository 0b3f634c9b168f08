package broker

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// cursor is what a subscription has behind it: every offset below floor, and those in settled. It
// is a plain value with a form on disk, in protobuf's wire format:
//
//	message Cursor {
//	  string name = 1;             // SERVICE/TOPIC
//	  uint64 floor = 2;
//	  repeated uint64 settled = 3; // packed: from, to (exclusive), from, to, …
//	  repeated uint64 attempts = 4; // packed: offset, attempts that ended, …
//	  uint64 seq = 5;              // where in the stream the batch of floor lies, or a place before it
//	  uint64 detached = 6;         // Unix nanoseconds since when no manifest has it; 0: one has
//	  uint64 dead = 7;             // dead letters that are kept, as of the save: they are counted again at start
//	  uint64 turn = 8;             // begins anywhere and counts seeks: ack ids from before one, or of another subscription, are void
//	  uint64 used = 9;             // Unix nanoseconds of the last pull or push, for expiration
//	  repeated Note notes = 10;    // what is known of attempts that ended
//	  uint64 redrive = 11;         // 1 + the offset from which on redriven messages may lie whose dead letters are not removed yet; 0: none do
//	}
//	message Note { uint64 offset = 1; uint64 attempt = 2; uint64 time = 3; string error = 4; bytes span = 5; } // Unix nanoseconds
type cursor struct {
	name     string
	floor    uint64
	settled  []span            // sorted, disjoint, above floor
	attempts map[uint64]uint64 // of unsettled offsets; without those that have none
	seq      uint64
	detached time.Time
	dead     uint64
	turn     uint64
	used     time.Time
	notes    map[uint64][]Failure // of unsettled offsets
	noted    int                  // bytes of them
	redrive  uint64               // 1 + the offset from which on dead letters were redriven to it that may be there yet
}

// notesMost bounds the notes of one cursor, in bytes: it is saved whole. Attempts beyond are only counted.
const notesMost = 256 << 10

// begin lets the times of a cursor that was read go on by the monotonic clock: a wall clock that is set while the process runs makes no
// subscription older.
func (c *cursor) begin(now time.Time) {
	for _, t := range []*time.Time{&c.detached, &c.used} {
		if !t.IsZero() {
			*t = now.Add(t.Sub(now))
		}
	}
}

// span is a half-open range of offsets.
type span struct{ from, to uint64 }

// settle puts the offsets from..to-1 behind the cursor, and returns how many were not yet.
func (c *cursor) settle(from, to uint64) (n uint64) {
	from = max(from, c.floor)
	if from >= to {
		return 0
	}
	i, _ := slices.BinarySearchFunc(c.settled, from, func(s span, o uint64) int { return cmp.Compare(s.to, o) })
	j := i
	n = to - from
	merged := span{from, to}
	for ; j < len(c.settled) && c.settled[j].from <= to; j++ {
		s := c.settled[j]
		n -= min(s.to, to) - min(max(s.from, from), min(s.to, to))
		merged = span{min(merged.from, s.from), max(merged.to, s.to)}
	}
	c.settled = slices.Replace(c.settled, i, j, merged)
	if merged.from == c.floor {
		c.floor = merged.to
		c.settled = slices.Delete(c.settled, 0, 1)
	}
	c.forget(from, to)
	return n
}

// forget drops what is known of attempts at offsets that are settled.
func (c *cursor) forget(from, to uint64) {
	if to-from == 1 {
		c.forgetOne(from)
		return
	}
	for o := range c.attempts {
		if from <= o && o < to {
			c.forgetOne(o)
		}
	}
}

func (c *cursor) forgetOne(offset uint64) {
	delete(c.attempts, offset)
	for _, n := range c.notes[offset] {
		c.noted -= n.size()
	}
	delete(c.notes, offset)
}

func (f *Failure) size() int { return len(f.Error) + 48 }

func (c *cursor) isSettled(offset uint64) bool {
	if offset < c.floor {
		return true
	}
	i, _ := slices.BinarySearchFunc(c.settled, offset+1, func(s span, o uint64) int { return cmp.Compare(s.to, o) })
	return i < len(c.settled) && c.settled[i].from <= offset
}

// failed counts an attempt that ended without success, and notes why.
func (c *cursor) failed(offset uint64, why Failure) {
	if c.attempts == nil {
		c.attempts = make(map[uint64]uint64)
	}
	c.attempts[offset]++
	if c.noted+why.size() > notesMost {
		return
	}
	c.note(offset, why)
}

func (c *cursor) note(offset uint64, why Failure) {
	if c.notes == nil {
		c.notes = make(map[uint64][]Failure)
	}
	c.notes[offset] = append(c.notes[offset], why)
	c.noted += why.size()
}

// lag is how many offsets below head are not settled.
func (c *cursor) lag(head uint64) uint64 {
	n := head - min(head, c.floor)
	for _, s := range c.settled {
		n -= min(n, s.to-s.from)
	}
	return n
}

func (c *cursor) encode() []byte {
	out := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), c.name)
	number := func(n protowire.Number, v uint64) {
		out = protowire.AppendVarint(protowire.AppendTag(out, n, protowire.VarintType), v)
	}
	number(2, c.floor)
	var settled, attempts []byte
	for _, s := range c.settled {
		settled = protowire.AppendVarint(protowire.AppendVarint(settled, s.from), s.to)
	}
	for offset, n := range c.attempts {
		attempts = protowire.AppendVarint(protowire.AppendVarint(attempts, offset), n)
	}
	out = protowire.AppendBytes(protowire.AppendTag(out, 3, protowire.BytesType), settled)
	out = protowire.AppendBytes(protowire.AppendTag(out, 4, protowire.BytesType), attempts)
	number(5, c.seq)
	if !c.detached.IsZero() {
		number(6, uint64(c.detached.UnixNano()))
	}
	number(7, c.dead)
	number(8, c.turn)
	if !c.used.IsZero() {
		number(9, uint64(c.used.UnixNano()))
	}
	if c.redrive != 0 {
		number(11, c.redrive)
	}
	for offset, notes := range c.notes {
		for _, n := range notes {
			out = protowire.AppendBytes(protowire.AppendTag(out, 10, protowire.BytesType), encodeNote(offset, &n))
		}
	}
	return out
}

func decodeCursor(data []byte) (*cursor, error) {
	c := &cursor{attempts: make(map[uint64]uint64)}
	err := fields(data, func(f field) (err error) {
		switch f.number {
		case 1:
			c.name = string(f.bytes)
		case 2:
			c.floor = f.number64
		case 3:
			err = pairs(f.bytes, func(from, to uint64) { c.settled = append(c.settled, span{from, to}) })
		case 4:
			err = pairs(f.bytes, func(offset, n uint64) { c.attempts[offset] = n })
		case 5:
			c.seq = f.number64
		case 6:
			c.detached = time.Unix(0, int64(f.number64)).UTC()
		case 7:
			c.dead = f.number64
		case 8:
			c.turn = f.number64
		case 9:
			c.used = time.Unix(0, int64(f.number64)).UTC()
		case 10:
			err = c.decodeNote(f.bytes)
		case 11:
			c.redrive = f.number64
		}
		return err
	})
	return c, err
}

func encodeNote(first uint64, n *Failure) (out []byte) {
	for i, v := range []uint64{first, n.Attempt, uint64(n.Time.UnixNano())} {
		out = protowire.AppendVarint(protowire.AppendTag(out, protowire.Number(i+1), protowire.VarintType), v)
	}
	out = protowire.AppendString(protowire.AppendTag(out, 4, protowire.BytesType), n.Error)
	return appendSpan(out, 5, n.SpanID)
}

func (c *cursor) decodeNote(data []byte) error {
	offset, n, err := decodeNote(data)
	c.note(offset, n)
	return err
}

func decodeNote(data []byte) (first uint64, n Failure, err error) {
	err = fields(data, func(f field) error {
		switch f.number {
		case 1:
			first = f.number64
		case 2:
			n.Attempt = f.number64
		case 3:
			n.Time = time.Unix(0, int64(f.number64)).UTC()
		case 4:
			n.Error = string(f.bytes)
		case 5:
			copy(n.SpanID[:], f.bytes)
		}
		return nil
	})
	return first, n, err
}

// pairs reads packed varints, two at a time.
func pairs(data []byte, each func(a, b uint64)) error {
	for len(data) > 0 {
		a, n := protowire.ConsumeVarint(data)
		if n < 0 {
			return fmt.Errorf("%w: %w", errCorrupt, protowire.ParseError(n))
		}
		b, m := protowire.ConsumeVarint(data[n:])
		if m < 0 {
			return fmt.Errorf("%w: %w", errCorrupt, protowire.ParseError(m))
		}
		each(a, b)
		data = data[n+m:]
	}
	return nil
}
