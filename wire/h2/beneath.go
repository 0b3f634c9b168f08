package h2

import (
	"errors"
	"net"
	"sync"
	"time"
)

// Beneath returns nc with a buffer each way, to be put beneath a tls.Conn that a [Conn] uses. A tls.Conn
// reads twice and writes once per record; with the buffer one read brings many records, and what writers
// combined leaves as few records in one write. Until a Conn takes it over, as for the handshake, it reads
// and writes as nc does.
func Beneath(nc net.Conn) net.Conn { return &beneath{Conn: nc} }

type beneath struct {
	net.Conn

	// Of whoever reads. raw reads without waiting, and is nil while reads may wait.
	raw     func(p []byte) (int, error)
	mayEnd  func() bool        // an end of file must not be missed
	in      *[beneathSize]byte // nil while it holds nothing
	r, w    int
	drained bool // the last read took all that there was

	mu      sync.Mutex // guards what follows
	holding bool       // writes are kept for flush
	out     []byte
}

// beneathSize holds four full records.
const beneathSize = 66 << 10

var beneathBuffers = sync.Pool{New: func() any { return new([beneathSize]byte) }}

// errDry says that a read would have to wait. A tls.Conn survives it, since it is a timeout.
var errDry = error(dry{})

type dry struct{}

func (dry) Error() string   { return "nothing to read yet" }
func (dry) Timeout() bool   { return true }
func (dry) Temporary() bool { return true }

func (b *beneath) Read(p []byte) (int, error) {
	if b.r < b.w {
		return b.take(p), nil
	}
	if b.raw == nil {
		return b.Conn.Read(p)
	}
	if b.drained {
		return 0, errDry
	}
	if b.in == nil {
		b.in = beneathBuffers.Get().(*[beneathSize]byte)
	}
	n, err := b.raw(b.in[:])
	b.drained = n < len(b.in) && !b.mayEnd()
	if n == 0 {
		b.rest()
		return 0, err
	}
	b.r, b.w = 0, n
	return b.take(p), nil
}

func (b *beneath) take(p []byte) int {
	n := copy(p, b.in[b.r:b.w])
	if b.r += n; b.r == b.w {
		b.rest()
	}
	return n
}

// rest gives the empty buffer back.
func (b *beneath) rest() {
	if b.in != nil {
		beneathBuffers.Put(b.in)
	}
	b.in, b.r, b.w = nil, 0, 0
}

func (b *beneath) Write(p []byte) (int, error) {
	b.mu.Lock()
	if !b.holding {
		b.mu.Unlock()
		return b.Conn.Write(p)
	}
	defer b.mu.Unlock()
	b.out = append(b.out, p...)
	return len(p), nil
}

// hold has writes kept for flush, or passed on at once.
func (b *beneath) hold(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holding = on
}

// flush gives what is held to write, which takes what it can without waiting. It reports whether that was
// all.
func (b *beneath) flush(write func(p []byte) (int, error)) (all bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.out) == 0 {
		return true, nil
	}
	n, err := write(b.out)
	b.out = b.out[:copy(b.out, b.out[n:])]
	if len(b.out) == 0 && cap(b.out) > keepCombined {
		b.out = nil
	}
	return len(b.out) == 0, err
}

// taken returns what is held, and holds it no more.
func (b *beneath) taken() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.out
	b.out = nil
	return p
}

// Close writes what is held, a tls.Conn's farewell, if the socket takes it at once.
func (b *beneath) Close() error {
	b.hold(false)
	if p := b.taken(); len(p) > 0 {
		_ = b.SetWriteDeadline(time.Now().Add(farewell))
		_, _ = b.Conn.Write(p) // the peer notices the end without it
	}
	return b.Conn.Close()
}

const farewell = 50 * time.Millisecond

// under finds the buffer beneath nc, if it is a tls.Conn, or embeds one, that has one.
func under(nc net.Conn) *beneath {
	t, ok := nc.(interface{ NetConn() net.Conn })
	if !ok {
		return nil
	}
	b, _ := t.NetConn().(*beneath)
	return b
}

// isDry tells the end of what there is to read from a poke, which is a timeout too.
func isDry(err error) bool { return errors.Is(err, errDry) }
