package proxy

import "sync"

// bufferSize holds the heads and small bodies of nearly all messages; a larger head grows it.
const bufferSize = 16 << 10

// buffer is bytes read and not yet consumed: b[r:w]. Connections hold one only while it has bytes.
type buffer struct {
	b    []byte
	r, w int
}

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, bufferSize)} }}

func getBuffer() *buffer { return buffers.Get().(*buffer) }

func putBuffer(b *buffer) {
	if len(b.b) == largeSize {
		largeBuffers.Put((*[largeSize]byte)(b.b))
	}
	if len(b.b) != bufferSize {
		return // grown for one large head, or freed: not worth keeping
	}
	b.r, b.w = 0, 0
	buffers.Put(b)
}

func (b *buffer) bytes() []byte { return b.b[b.r:b.w] }

// room returns where the next bytes are read to; at most limit bytes are ever held, and none are
// left to read to once they are.
func (b *buffer) room(limit int) []byte {
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
	if b.w < len(b.b) {
		return b.b[b.w:]
	}
	if b.r > 0 {
		b.w = copy(b.b, b.b[b.r:b.w])
		b.r = 0
		return b.b[b.w:]
	}
	if len(b.b) < limit {
		grown := make([]byte, min(4*len(b.b), limit))
		copy(grown, b.b)
		b.b = grown
	}
	return b.b[b.w:]
}

// enlarge makes b one for a large body: each read and write has a price of its own.
func (b *buffer) enlarge() {
	if len(b.b) != bufferSize {
		return
	}
	large := largeBuffers.Get().(*[largeSize]byte)
	b.r, b.w = 0, copy(large[:], b.bytes())
	buffers.Put(&buffer{b: b.b})
	b.b = large[:]
}

// largeSize is how much of a large body is read at once.
const largeSize = 128 << 10

var largeBuffers = sync.Pool{New: func() any { return new([largeSize]byte) }}

// free gives the memory back at once and leaves b empty: for what outlives its bytes.
func (b *buffer) free() {
	if len(b.b) == bufferSize {
		buffers.Put(&buffer{b: b.b})
	}
	*b = buffer{}
}
