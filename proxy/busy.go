package proxy

import "sync/atomic"

// busy counts the exchanges of an endpoint. Both its numbers are in one word, so that one operation
// counts both: all that are in progress, and those of them that the endpoint works on. A tunnel, and an
// answer that streams, are in progress without being work: what holds thousands of them open is not
// overloaded.
type busy struct{ word atomic.Uint64 }

const oneWorking = 1 << 32

// enter counts one exchange in, and returns how many the endpoint works on then.
func (b *busy) enter() int64 { return int64(b.word.Add(oneWorking+1) >> 32) }

// leave counts one out: from both numbers, or, where it works no more, from one.
func (b *busy) leave(working bool) (left int64) {
	if working {
		return int64(uint32(b.word.Add(^uint64(oneWorking)))) // - oneWorking - 1
	}
	return int64(uint32(b.word.Add(^uint64(0))))
}

// rest says that one works no more, although it goes on.
func (b *busy) rest() { b.word.Add(^uint64(oneWorking - 1)) }

func (b *busy) all() int64     { return int64(uint32(b.word.Load())) }
func (b *busy) working() int64 { return int64(b.word.Load() >> 32) }

// traffic counts the exchanges of a callee, in one word as well: those in progress, and, wrapping
// around, all that ever began.
type traffic struct{ word atomic.Uint64 }

const oneBegun = 1 << 32

func (t *traffic) begin() (inflight int64) { return int64(uint32(t.word.Add(oneBegun + 1))) }
func (t *traffic) end()                    { t.word.Add(^uint64(0)) }
func (t *traffic) begun() uint32           { return uint32(t.word.Load() >> 32) }
