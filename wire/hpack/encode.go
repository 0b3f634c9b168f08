package hpack

import (
	"hash/maphash"
	"math"
)

// Encoder writes header blocks. It gives a place in the table to what it was given twice, of late: what
// seldom comes again would only push out what does. Strings are never Huffman-coded: between machines that
// stand near each other, the bytes that this saves cost less than the coding. The zero value is not ready;
// see [NewEncoder].
type Encoder struct {
	table table
	limit uint32 // of the table, whatever the peer allows
	low   uint32 // the smallest size since the last block; none is math.MaxUint32
	moved bool   // the size is to be told with the next field
	slots []uint32
	seen  [64]uint32 // hashes of what came once

	guesses [32]guess // by a field's place in its block
	place   int       // of the next field
}

// guess is where the field at one place of a block was found the last time. Blocks of one connection are mostly alike,
// so that it is found there again without a search.
type guess struct {
	static uint8  // its index; 0: it was in the dynamic table
	number uint32 // of the entry there
}

// NewEncoder returns an encoder whose table has the initial size, which the peer may change, to limit at most.
func NewEncoder(limit uint32) *Encoder {
	return &Encoder{table: table{max: initialTable}, limit: limit, low: math.MaxUint32}
}

// SetMaxSize is for what the peer says of its table. It is for between two header blocks.
func (e *Encoder) SetMaxSize(n uint32) {
	n = min(n, e.limit)
	if int(n) == e.table.max {
		return
	}
	e.low, e.moved = min(e.low, n), true
	e.table.resize(int(n))
}

// Begin begins a header block.
func (e *Encoder) Begin() { e.place = 0 }

// Append appends a field to a header block. Both strings may be views. One that is sensitive is marked as
// one that no table may keep.
func (e *Encoder) Append(dst []byte, name, value string, sensitive bool) []byte {
	if e.moved {
		dst = e.tell(dst)
	}
	g := &e.guesses[e.place%len(e.guesses)]
	e.place++
	if index := e.guessed(*g, name, value); index > 0 && !sensitive {
		return appendNumber(dst, 0x80, 7, index)
	}
	names := maphash.String(seed, name)
	all := names*31 ^ maphash.String(seed, value)
	index, whole := findStatic(name, value, names, all)
	if whole {
		*g = guess{static: uint8(index)}
		return appendNumber(dst, 0x80, 7, index)
	}
	if i := e.find(all, name, value, true); i > 0 && !sensitive {
		*g = guess{number: e.table.numberOf(i)}
		return appendNumber(dst, 0x80, 7, len(static)+i)
	}
	if index == 0 {
		if i := e.find(names, name, "", false); i > 0 {
			index = len(static) + i
		}
	}
	switch {
	case sensitive:
		dst = appendNumber(dst, 0x10, 4, index)
	case e.worth(index, name, value, uint32(all)):
		e.keep(name, value, names, all)
		dst = appendNumber(dst, 0x40, 6, index)
	default:
		dst = appendNumber(dst, 0, 4, index)
	}
	if index == 0 {
		dst = appendText(dst, name)
	}
	return appendText(dst, value)
}

// guessed returns the index of a field where g says that it was; 0: it is not there.
func (e *Encoder) guessed(g guess, name, value string) int {
	if g.static > 0 {
		if f := &static[g.static-1]; f.Name == name && f.Value == value {
			return int(g.static)
		}
		return 0
	}
	index := e.table.index(g.number)
	if index == 0 {
		return 0
	}
	if n, v := e.table.get(index); string(n) != name || string(v) != value {
		return 0
	}
	return len(static) + index
}

// tell writes the size of the table. Where it was smaller meanwhile, that is told first (RFC 7541 section
// 4.2), as an empty table: x/net's decoder takes a second update for no other.
func (e *Encoder) tell(dst []byte) []byte {
	if limit := e.table.max; int(e.low) < limit {
		e.table.resize(0)
		e.table.resize(limit)
		dst = appendNumber(dst, 0x20, 5, 0)
	}
	e.low, e.moved = math.MaxUint32, false
	return appendNumber(dst, 0x20, 5, e.table.max)
}

// worth reports whether a field gets a place in the table: its name is new, which any value will need, or
// it came lately, and it is no more than a part of the table.
func (e *Encoder) worth(index int, name, value string, h uint32) bool {
	if 4*size(len(name), len(value)) > e.table.max {
		return false
	}
	at := &e.seen[h%uint32(len(e.seen))]
	again := *at == h
	*at = h
	return index == 0 || again
}

// ways is how many places there are for one hash.
const ways = 4

// keep puts a field into the table, where it is found by its name and as a whole.
func (e *Encoder) keep(name, value string, names, all uint64) {
	if want := slotsFor(e.table.max); len(e.slots) < want {
		e.slots = make([]uint32, want) // what was found before comes once more
	}
	number := e.table.add(name, value)
	e.put(names, number)
	e.put(all, number)
}

// slotsFor leaves half of the slots free when a table is full of short fields.
func slotsFor(limit int) int {
	n := 64
	for n < limit/12 {
		n *= 2
	}
	return n
}

// put takes a slot whose entry is gone, else the one with the oldest.
func (e *Encoder) put(hash uint64, number uint32) {
	oldest, at := 0, (*uint32)(nil)
	for i := range ways {
		slot := e.slot(hash, i)
		index := e.table.index(*slot)
		if index == 0 {
			*slot = number
			return
		}
		if index > oldest {
			oldest, at = index, slot
		}
	}
	*at = number
}

func (e *Encoder) slot(hash uint64, i int) *uint32 {
	return &e.slots[(hash+uint64(i))&uint64(len(e.slots)-1)]
}

// find returns the table's own index of a field, or of one of the same name; 0: there is none.
func (e *Encoder) find(hash uint64, name, value string, whole bool) int {
	if len(e.slots) == 0 {
		return 0
	}
	for i := range ways {
		index := e.table.index(*e.slot(hash, i))
		if index == 0 {
			continue
		}
		n, v := e.table.get(index)
		if string(n) == name && (!whole || string(v) == value) {
			return index
		}
	}
	return 0
}

// seed is the same for all: the static table is looked up by it.
var seed = maphash.MakeSeed()

// staticSlots finds the fields of the static table, by name and as a whole, at the first free place from
// their hash on.
var staticSlots = makeStaticSlots()

func makeStaticSlots() (slots [512]uint8) {
	put := func(hash uint64, i int) {
		for at := hash % uint64(len(slots)); ; at = (at + 1) % uint64(len(slots)) {
			if slots[at] == 0 {
				slots[at] = uint8(i + 1)
				return
			}
		}
	}
	for i := range static {
		f := &static[i]
		names := maphash.String(seed, f.Name)
		if i == 0 || static[i-1].Name != f.Name {
			put(names, i)
		}
		put(names*31^maphash.String(seed, f.Value), i)
	}
	return slots
}

// findStatic returns the index of a field in the static table, or of one of the same name.
func findStatic(name, value string, names, all uint64) (index int, whole bool) {
	if i := probeStatic(all, name, value, true); i > 0 {
		return i, true
	}
	return probeStatic(names, name, "", false), false
}

func probeStatic(hash uint64, name, value string, whole bool) int {
	for at := hash % uint64(len(staticSlots)); staticSlots[at] > 0; at = (at + 1) % uint64(len(staticSlots)) {
		f := &static[staticSlots[at]-1]
		if f.Name == name && (!whole || f.Value == value) {
			return int(staticSlots[at])
		}
	}
	return 0
}

// appendNumber appends a number behind the first bits of its byte (RFC 7541 section 5.1).
func appendNumber(dst []byte, first byte, bits, n int) []byte {
	if limit := 1<<bits - 1; n < limit {
		return append(dst, first|byte(n))
	} else {
		dst = append(dst, first|byte(limit))
		n -= limit
	}
	for ; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

func appendText(dst []byte, s string) []byte {
	return append(appendNumber(dst, 0, 7, len(s)), s...)
}
