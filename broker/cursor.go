package broker

import (
	"cmp"
	"fmt"
	"maps"
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
//	  uint64 dead = 7;             // dead letters, ever
//	}
type cursor struct {
	name     string
	floor    uint64
	settled  []span            // sorted, disjoint, above floor
	attempts map[uint64]uint64 // of unsettled offsets; without those that have none
	seq      uint64
	detached time.Time
	dead     uint64
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
	maps.DeleteFunc(c.attempts, func(o, _ uint64) bool { return from <= o && o < to })
	return n
}

func (c *cursor) isSettled(offset uint64) bool {
	if offset < c.floor {
		return true
	}
	i, _ := slices.BinarySearchFunc(c.settled, offset+1, func(s span, o uint64) int { return cmp.Compare(s.to, o) })
	return i < len(c.settled) && c.settled[i].from <= offset
}

// failed counts an attempt that ended without success.
func (c *cursor) failed(offset uint64) {
	if c.attempts == nil {
		c.attempts = make(map[uint64]uint64)
	}
	c.attempts[offset]++
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
		}
		return err
	})
	return c, err
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
