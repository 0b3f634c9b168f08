package hpack

// table is a dynamic table (RFC 7541 section 2.3.2). Its text lies in one buffer, oldest first, in which
// room is made by moving what is still there to the front.
type table struct {
	text    []byte
	base    uint64 // place of text[0] in all text that there ever was
	entries []entry
	first   int    // of entries, the oldest that is still there
	number  uint32 // of entries[0], counted from the connection's beginning; it may wrap
	size    int
	max     int
}

// entry is one field: its name, and behind it its value.
type entry struct {
	at          uint64
	name, value uint32
}

func (t *table) len() int { return len(t.entries) - t.first }

// index is the table's own index of an entry, by its number: 1 is the newest. 0: it is gone.
func (t *table) index(number uint32) int {
	at := number - t.number
	if at < uint32(t.first) || at >= uint32(len(t.entries)) {
		return 0
	}
	return len(t.entries) - int(at)
}

// numberOf is the number of the entry with an index that is in the table.
func (t *table) numberOf(index int) uint32 { return t.number + uint32(len(t.entries)-index) }

// get returns the entry with an index that is in the table, valid until the next add.
func (t *table) get(index int) (name, value []byte) {
	e := &t.entries[len(t.entries)-index]
	p := t.text[e.at-t.base:]
	return p[:e.name:e.name], p[e.name : e.name+e.value]
}

// add adds a field, for which older ones make room, and returns its number. One that is larger than the
// table empties it, and is not there (RFC 7541 section 4.4). Neither may be a view of the table.
func (t *table) add(name, value string) uint32 {
	n := size(len(name), len(value))
	t.evict(t.max - n)
	if n > t.max {
		return t.number - 1
	}
	t.makeRoom(len(name) + len(value))
	t.entries = append(t.entries, entry{t.base + uint64(len(t.text)), uint32(len(name)), uint32(len(value))})
	t.text = append(append(t.text, name...), value...)
	t.size += n
	return t.number + uint32(len(t.entries)-1)
}

// resize sets how large the table may become.
func (t *table) resize(limit int) {
	t.max = limit
	t.evict(limit)
}

// evict drops the oldest until no more than limit is left.
func (t *table) evict(limit int) {
	for t.size > limit && t.len() > 0 {
		e := &t.entries[t.first]
		t.size -= size(int(e.name), int(e.value))
		t.first++
	}
}

// makeRoom moves what is left to the front once half is waste, so that each byte is moved a bounded
// number of times.
func (t *table) makeRoom(n int) {
	if t.first > 16 && t.first >= t.len() {
		t.number += uint32(t.first)
		t.entries = t.entries[:copy(t.entries, t.entries[t.first:])]
		t.first = 0
	}
	if len(t.text)+n <= cap(t.text) {
		return
	}
	waste := len(t.text)
	if t.len() > 0 {
		waste = int(t.entries[t.first].at - t.base)
	}
	if live := len(t.text) - waste; 2*(live+n) > cap(t.text) {
		t.text = append(make([]byte, 0, max(512, 2*(live+n))), t.text[waste:]...)
	} else {
		t.text = t.text[:copy(t.text, t.text[waste:])]
	}
	t.base += uint64(waste)
}
