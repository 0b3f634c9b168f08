package h2

import "encoding/binary"

func (c *Conn) onReset(f *frame) error {
	if len(f.payload) != 4 {
		return connError(FrameSizeError, "RST_STREAM that is not 4 bytes")
	}
	if c.countReset(); c.abused {
		return c.tooManyResets()
	}
	c.mu.Lock()
	s := c.streams[f.id]
	if s == nil {
		idle := c.idleLocked(f.id)
		c.mu.Unlock()
		if idle {
			return connError(ProtocolError, "RST_STREAM on an idle stream")
		}
		return nil
	}
	code := Code(binary.BigEndian.Uint32(f.payload))
	s.err = &StreamError{Code: code, Reason: "RST_STREAM", Remote: true, Unprocessed: c.client && code == RefusedStream}
	s.closeLocked(false)
	c.mu.Unlock()
	s.deliver(Event{Kind: Closed, Batch: &c.batch, Err: s.err})
	return nil
}

func (c *Conn) onPriority(f *frame) error {
	if f.id == 0 {
		return connError(ProtocolError, "PRIORITY without a stream")
	}
	if len(f.payload) != 5 {
		return c.streamError(f.id, FrameSizeError, "PRIORITY that is not 5 bytes")
	}
	if binary.BigEndian.Uint32(f.payload)&idMax == f.id {
		return c.streamError(f.id, ProtocolError, "a stream that depends on itself")
	}
	return c.countControl()
}

// streamError resets a stream, open or not.
func (c *Conn) streamError(id uint32, code Code, why string) error {
	c.mu.Lock()
	s := c.streams[id]
	if s == nil {
		c.rejectLocked(id, code)
		c.mu.Unlock()
		return c.countControl()
	}
	c.mu.Unlock()
	s.fail(&c.batch, code, why)
	return nil
}

// rejectLocked resets a stream that never was, and remembers that late frames are to be ignored.
func (c *Conn) rejectLocked(id uint32, code Code) {
	c.writer.out = appendReset(c.writer.out, id, code)
	c.batch.mark(c)
	c.rememberLocked(id, true)
}

func (c *Conn) rememberLocked(id uint32, reset bool) {
	c.closedIDs[c.closedAt%len(c.closedIDs)] = closedID{id, reset}
	c.closedAt++
}
