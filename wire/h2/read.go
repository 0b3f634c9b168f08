package h2

import (
	"encoding/binary"
	"runtime"
	"sync"

	"github.com/shoalrun/shoal/wire/hpack"
)

// readSize holds the largest frame and as much again, so that a read seldom ends inside one.
const readSize = 2*(frameMax+frameHead) + 1024

var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// reader is the state of the reading goroutine.
type reader struct {
	buf      *[readSize]byte // nil while nothing is in it: an idle connection holds no buffer
	have     int
	prefaced bool // the client's preface was seen
	settled  bool // the peer's first SETTINGS was seen
	leaving  bool // the peer said GOAWAY
	batch    Batch
	window   int64 // what the peer may still send on the connection
	got      int   // received, not yet returned as window
	control  bucket
	resets   bucket
	abused   bool // there were too many

	dec        *hpack.Decoder
	list       hpack.List // of the block that was read last
	block      []byte     // of a header block in several frames
	blockID    uint32
	blockFlags byte
	blockSelf  bool // its priority names itself
}

// space returns where the next read goes.
func (c *Conn) space() []byte {
	if c.buf == nil {
		c.buf = readBuffers.Get().(*[readSize]byte)
	}
	return c.buf[c.have:]
}

// rest gives the buffer back once it is empty.
func (c *Conn) rest() {
	if c.have == 0 && c.buf != nil {
		readBuffers.Put(c.buf)
		c.buf = nil
	}
}

// feedInitial takes bytes that somebody else read.
func (c *Conn) feedInitial(p []byte) error {
	for len(p) > 0 {
		n := copy(c.space(), p)
		p = p[n:]
		if err := c.feed(n); err != nil {
			return err
		}
	}
	return nil
}

// feed runs the frames that the last n bytes completed, then writes what they led to.
func (c *Conn) feed(n int) error {
	c.have += n
	c.reads.Add(1)
	c.recycle()
	used, err := c.frames(c.buf[:c.have])
	c.have = copy(c.buf[:], c.buf[used:c.have])
	c.returnWindow()
	if len(c.batch.dirty) == 0 {
		return err
	}
	if !c.client && c.batch.crowded() {
		runtime.Gosched() // lets the other connections that are ready append first: fewer, larger writes
	}
	c.batch.flush()
	return err
}

// crowded reports whether others are likely to have something to say on a connection that is to be written.
func (b *Batch) crowded() bool {
	for _, c := range b.dirty {
		c.mu.Lock()
		n := c.active
		c.mu.Unlock()
		if n >= crowd {
			return true
		}
	}
	return false
}

// recycle makes streams usable again that ended and were released. Only the reading goroutine may
// do that: it is the one that could still hold such a stream.
func (c *Conn) recycle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, s := range c.retired {
		if s.pins == 0 && len(c.free) < 256 {
			c.free = append(c.free, s)
		}
		c.retired[i] = nil
	}
	c.retired = c.retired[:0]
}

// returnWindow returns the connection's window on receipt.
func (c *Conn) returnWindow() {
	if c.got < int(c.cfg.ConnWindow/2) {
		return
	}
	c.mu.Lock()
	c.writer.out = appendWindowUpdate(c.writer.out, 0, c.got)
	c.batch.mark(c)
	c.mu.Unlock()
	c.window += int64(c.got)
	c.got = 0
}

// frames runs all whole frames of p and returns how many bytes they were.
func (c *Conn) frames(p []byte) (used int, err error) {
	if !c.prefaced {
		n := min(len(p), len(preface))
		if string(p[:n]) != preface[:n] {
			return 0, connError(ProtocolError, "the connection does not begin with the HTTP/2 preface")
		}
		if n < len(preface) {
			return 0, nil
		}
		c.prefaced = true
		used = n
	}
	for len(p)-used >= frameHead {
		h := p[used:]
		n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		f := frame{typ: h[3], flags: h[4], id: binary.BigEndian.Uint32(h[5:]) & idMax}
		if n > frameMax {
			return used, connError(FrameSizeError, "a frame over 16384 bytes (SETTINGS_MAX_FRAME_SIZE)")
		}
		if len(h) < frameHead+n {
			break
		}
		f.payload = h[frameHead : frameHead+n]
		if err := c.frame(&f); err != nil {
			return used, err
		}
		if c.abused {
			return used, c.tooManyResets()
		}
		used += frameHead + n
	}
	return used, nil
}

func (c *Conn) frame(f *frame) error {
	if !c.settled && (f.typ != frameSettings || f.has(flagAck)) {
		return connError(ProtocolError, "the first frame is not SETTINGS")
	}
	if c.blockID != 0 && f.typ != frameContinuation {
		return connError(ProtocolError, "a header block was interrupted")
	}
	switch f.typ {
	case frameData:
		return c.onData(f)
	case frameHeaders:
		return c.onHeaders(f)
	case frameContinuation:
		return c.onContinuation(f)
	case frameReset:
		return c.onReset(f)
	case frameSettings:
		return c.onSettings(f)
	case framePing:
		return c.onPing(f)
	case frameGoAway:
		return c.onGoAway(f)
	case frameWindowUpdate:
		return c.onWindowUpdate(f)
	case framePriority:
		return c.onPriority(f)
	case framePushPromise:
		return connError(ProtocolError, "PUSH_PROMISE, though push is off")
	}
	return c.countControl() // unknown types are ignored (section 4.1), not without limit
}

// received takes n bytes from the connection's window.
func (c *Conn) received(n int) error {
	if int64(n) > c.window {
		return connError(FlowControlError, "more DATA than the connection's window (ConnWindow)")
	}
	c.window -= int64(n)
	c.got += n
	return nil
}

func (c *Conn) onData(f *frame) error {
	if f.id == 0 {
		return connError(ProtocolError, "DATA without a stream")
	}
	p, err := f.unpad()
	if err != nil {
		return err
	}
	if err := c.received(len(f.payload)); err != nil {
		return err
	}
	end := f.has(flagEndStream)
	if len(p) == 0 && !end {
		return c.countControl()
	}
	c.mu.Lock()
	s := c.streams[f.id]
	if s == nil {
		c.mu.Unlock()
		return c.stray(f.id, "DATA")
	}
	c.earnLocked(earnedByData)
	if code, why := s.takeDataLocked(len(p), len(f.payload), end); why != "" {
		c.mu.Unlock()
		s.fail(&c.batch, code, why)
		return nil
	}
	if s.receiver == nil {
		s.Keep(p, end)
		s.wakeLocked()
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	s.deliver(Event{Kind: Data, Batch: &c.batch, Data: p, End: end})
	return nil
}

// stray answers a frame on a stream that is not open (section 5.1).
func (c *Conn) stray(id uint32, what string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idleLocked(id) {
		return connError(ProtocolError, what+" on an idle stream")
	}
	for _, old := range c.closedIDs {
		if old.id == id && old.reset {
			return nil
		}
	}
	c.writer.out = appendReset(c.writer.out, id, StreamClosed)
	c.batch.mark(c)
	return c.countControl()
}

// idleLocked reports whether a stream was never opened.
func (c *Conn) idleLocked(id uint32) bool {
	if c.client {
		return id >= c.nextID || id%2 == 0
	}
	return id > c.acceptedID || id%2 == 0
}
