package broker

import "encoding/binary"

// dues is a heap of what is due, by time, then by offset. It is container/heap's algorithm without its interface, which would
// allocate for each of a million entries.
type dues []due

func (h dues) less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].offset < h[j].offset
}

func (h dues) init() {
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h *dues) push(d due) {
	*h = append(*h, d)
	h.up(len(*h) - 1)
}

// pop removes the first.
func (h *dues) pop() {
	last := len(*h) - 1
	(*h)[0] = (*h)[last]
	*h = (*h)[:last]
	h.down(0)
}

func (h dues) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (h dues) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h.less(child+1, child) {
			child++
		}
		if !h.less(child, i) {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

func le(data []byte) uint64                    { return binary.LittleEndian.Uint64(data) }
func appendLE(data []byte, word uint64) []byte { return binary.LittleEndian.AppendUint64(data, word) }
