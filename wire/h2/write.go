package h2

import (
	"runtime"
	"sync"
	"time"
)

// writer is the output of a connection; the connection's mutex guards it.
type writer struct {
	out, spare []byte
	writing    bool      // somebody is in flush and writes for all
	queued     bool      // a batch will flush
	blocked    bool      // the socket is full: drainOutput waits for it
	broken     bool      // a write failed
	last       bool      // Run is ending: its own write deadline holds
	keep       int       // the largest buffer that is used again
	taken      uint64    // how often out was taken to be written
	quiet      sync.Cond // signalled when neither writing nor blocked
}

// Batch gathers the connections that have something to say, so that each is written to once for all
// that one read brought. It belongs to the goroutine that reads a connection. A nil *Batch, which
// every method takes, writes at once.
type Batch struct {
	owner *Conn
	dirty []*Conn
	later bool
}

// Later returns a batch for one who calls [Conn.FlushSoon] himself, once all is said.
func Later() *Batch { return &Batch{later: true} }

// mark has c flushed with the batch. The caller holds c.mu.
func (b *Batch) mark(c *Conn) {
	if b == nil || b.later || c.writer.queued {
		return
	}
	c.writer.queued = true
	b.dirty = append(b.dirty, c)
}

// done writes where there is no batch. The caller does not hold c.mu.
func (b *Batch) done(c *Conn) {
	if b == nil {
		c.FlushSoon()
	}
}

// crowd is with how many streams it is likely that another one has something to say, too. With fewer, to
// wait is to wake an idle processor for nothing.
const crowd = 3

// FlushSoon writes what was said with [Later], after everybody who is ready has had a chance to add to it,
// where that saves more than a write: a TLS record.
func (c *Conn) FlushSoon() {
	if !c.combines {
		c.flush()
		return
	}
	c.mu.Lock()
	if c.active < crowd {
		c.mu.Unlock()
		c.flush()
		return
	}
	if c.writer.queued || len(c.writer.out) == 0 {
		c.mu.Unlock()
		return // somebody else will
	}
	c.writer.queued = true
	c.mu.Unlock()
	runtime.Gosched()
	c.flush()
}

func (b *Batch) flush() {
	for i, c := range b.dirty {
		b.dirty[i] = nil
		c.flush()
	}
	b.dirty = b.dirty[:0]
}

// flushOthers is flush for a connection that is ending and says its last words itself.
func (b *Batch) flushOthers() {
	for _, c := range b.dirty {
		if c != b.owner {
			c.flush()
		}
	}
	b.dirty = nil
}

// keepBuffer is the largest output buffer that a connection keeps, and keepCombined that of one of the few
// that carry the streams of many.
const (
	keepBuffer   = 64 << 10
	keepCombined = 512 << 10
)

// flush writes what is there, unless somebody else is at it, who then writes for us too. Those who wait for their
// turn are told from another goroutine: who flushes may hold their locks.
func (c *Conn) flush() {
	c.mu.Lock()
	w := &c.writer
	w.queued = false
	if w.writing || w.blocked || w.broken || len(w.out) == 0 {
		c.mu.Unlock()
		return
	}
	w.writing = true
	for len(w.out) > 0 && !w.blocked && !w.broken {
		p := w.takeLocked()
		c.mu.Unlock()
		all, err := c.wire.tryWrite(p)
		c.mu.Lock()
		c.wroteLocked(p, all, err)
	}
	w.writing = false
	w.quiet.Broadcast()
	if len(c.turns.queues) > 0 && !c.turns.serving && !w.blocked && !w.broken && c.sendWindow > 0 {
		go c.serve()
	}
	c.mu.Unlock()
}

func (w *writer) takeLocked() []byte {
	p := w.out
	w.taken++
	w.out, w.spare = w.spare[:0], nil
	return p
}

func (w *writer) giveLocked(p []byte) {
	if cap(p) <= w.keep {
		w.spare = p[:0]
	}
}

func (c *Conn) wroteLocked(p []byte, all bool, err error) {
	switch {
	case err != nil:
		c.brokenLocked(err)
	case !all:
		c.writer.blocked = true
		go c.drainOutput(p)
	default:
		c.writer.giveLocked(p)
	}
}

// brokenLocked: nothing can be written any more. What the peer said before it closed may still be read; one that
// only takes nothing says no more.
func (c *Conn) brokenLocked(err error) {
	c.writer.broken = true
	c.writer.out = nil
	if deadline(err) {
		c.stopping, c.err = true, errStalled
	}
	c.poke()
}

// drainOutput waits in place of everyone for a socket that is full, then lets the streams go on that
// were held up by it.
func (c *Conn) drainOutput(p []byte) {
	for all := false; ; {
		err := error(nil)
		if !all {
			err = c.wire.writeRest(p, c.writeDeadline)
		}
		c.mu.Lock()
		w := &c.writer
		if err == nil {
			w.giveLocked(p)
		}
		if err == nil && len(w.out) > 0 {
			p = w.takeLocked()
			c.mu.Unlock()
			all, err = c.wire.tryWrite(p)
			if err == nil {
				continue
			}
			c.mu.Lock()
		}
		if err != nil {
			c.brokenLocked(err)
		}
		break
	}
	c.writer.blocked = false
	c.writer.quiet.Broadcast()
	c.mu.Unlock()
	c.serve()
}

// writeDeadline gives the peer the write timeout to take the next piece.
func (c *Conn) writeDeadline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.writer.last {
		_ = c.nc.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout))
	}
}

// cloggedLocked reports whether the peer takes so little that it gets no further answers: their heads are
// not subject to flow control.
func (c *Conn) cloggedLocked() bool { return c.writer.blocked && len(c.writer.out) > c.cfg.MaxOutput }
