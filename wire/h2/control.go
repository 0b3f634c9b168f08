package h2

import "encoding/binary"

// Settings (RFC 9113 section 6.5.2).
const (
	settingHeaderTable   = 0x1
	settingEnablePush    = 0x2
	settingMaxStreams    = 0x3
	settingInitialWindow = 0x4
	settingMaxFrame      = 0x5
	settingMaxHeaderList = 0x6
	settingConnect       = 0x8 // RFC 8441 section 3
)

func (c *Conn) onSettings(f *frame) error {
	if f.id != 0 {
		return connError(ProtocolError, "SETTINGS on a stream")
	}
	if f.has(flagAck) {
		if len(f.payload) != 0 {
			return connError(FrameSizeError, "a SETTINGS acknowledgement with a payload")
		}
		return c.countControl()
	}
	if len(f.payload)%6 != 0 {
		return connError(FrameSizeError, "SETTINGS that is not a multiple of 6 bytes")
	}
	if err := c.countControl(); err != nil {
		return err
	}
	if !c.settled {
		c.settled = true
		close(c.agreed)
	}
	c.mu.Lock()
	for p := f.payload; len(p) > 0; p = p[6:] {
		if err := c.settingLocked(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			c.mu.Unlock()
			return err
		}
	}
	c.writer.out = appendFrame(c.writer.out, 0, frameSettings, flagAck, 0)
	c.batch.mark(c)
	woken := c.opened()
	c.mu.Unlock()
	for _, s := range woken {
		s.deliver(Event{Kind: Writable, Batch: &c.batch})
	}
	return nil
}

// opened are the streams whose window SETTINGS opened.
func (c *Conn) opened() (all []*Stream) {
	for _, s := range c.streams {
		if s.starved && s.sendWindow > 0 {
			s.fedLocked()
			all = append(all, s)
		}
	}
	return all
}

func (c *Conn) settingLocked(id uint16, v uint32) error {
	switch id {
	case settingHeaderTable:
		c.enc.SetMaxSize(v) // of which the encoder uses no more than HeaderTable
	case settingEnablePush:
		if v > 1 || c.client && v == 1 {
			return connError(ProtocolError, "SETTINGS_ENABLE_PUSH has no valid value")
		}
	case settingMaxStreams:
		c.peer.maxStreams = v
	case settingInitialWindow:
		return c.initialWindowLocked(v)
	case settingConnect:
		if v > 1 || c.peer.connect && v == 0 {
			return connError(ProtocolError, "SETTINGS_ENABLE_CONNECT_PROTOCOL has no valid value")
		}
		c.peer.connect = v == 1
	case settingMaxFrame:
		if v < frameMax || v > 1<<24-1 {
			return connError(ProtocolError, "SETTINGS_MAX_FRAME_SIZE has no valid value")
		}
	}
	return nil
}

// initialWindowLocked moves the window of every stream by the difference; it may become negative
// (section 6.9.2).
func (c *Conn) initialWindowLocked(v uint32) error {
	if v > windowMax {
		return connError(FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE over 2^31-1")
	}
	more := int64(v) - c.peer.window
	c.peer.window = int64(v)
	for _, s := range c.streams {
		s.sendWindow += more
		if s.sendWindow > windowMax {
			return connError(FlowControlError, "a stream's window over 2^31-1")
		}
	}
	return nil
}

func (c *Conn) onPing(f *frame) error {
	if f.id != 0 {
		return connError(ProtocolError, "PING on a stream")
	}
	if len(f.payload) != 8 {
		return connError(FrameSizeError, "PING that is not 8 bytes")
	}
	if f.has(flagAck) {
		if string(f.payload) == pingShutdown {
			c.drainAfterPing()
		}
		return c.countControl()
	}
	c.mu.Lock()
	c.writer.out = append(appendFrame(c.writer.out, 8, framePing, flagAck, 0), f.payload...)
	c.batch.mark(c)
	earned := c.spendLocked()
	c.mu.Unlock()
	if earned {
		return nil
	}
	return c.countControl()
}

// drainAfterPing is the second step of a shutdown: every request that was on its way when the first
// GOAWAY arrived has come.
func (c *Conn) drainAfterPing() {
	c.mu.Lock()
	if c.stage == warned {
		c.drainLocked()
		c.batch.mark(c)
	}
	c.mu.Unlock()
}

func (c *Conn) onGoAway(f *frame) error {
	if f.id != 0 {
		return connError(ProtocolError, "GOAWAY on a stream")
	}
	if len(f.payload) < 8 {
		return connError(FrameSizeError, "GOAWAY under 8 bytes")
	}
	c.leaving = true
	if !c.client {
		return c.countControl() // the client opens no more streams; those that it has go on
	}
	last := binary.BigEndian.Uint32(f.payload) & idMax
	code := Code(binary.BigEndian.Uint32(f.payload[4:]))
	err := &StreamError{Code: code, Reason: "GOAWAY: " + string(f.payload[8:min(len(f.payload), 200)]), Remote: true, Unprocessed: true}
	var dropped []*Stream
	c.mu.Lock()
	c.gone = true
	for id, s := range c.streams {
		if id > last {
			dropped = append(dropped, s)
			s.err = err
			s.closeLocked(false)
		}
	}
	c.drainedLocked()
	c.mu.Unlock()
	for _, s := range dropped {
		s.deliver(Event{Kind: Closed, Batch: &c.batch, Err: err})
	}
	return c.countControl()
}

func (c *Conn) onWindowUpdate(f *frame) error {
	if len(f.payload) != 4 {
		return connError(FrameSizeError, "WINDOW_UPDATE that is not 4 bytes")
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & idMax)
	if f.id == 0 {
		return c.connWindow(n)
	}
	if n == 0 {
		return c.streamError(f.id, ProtocolError, "WINDOW_UPDATE of 0")
	}
	c.mu.Lock()
	if !c.spendLocked() {
		if err := c.countControl(); err != nil {
			c.mu.Unlock()
			return err
		}
	}
	s := c.streams[f.id]
	if s == nil {
		idle := c.idleLocked(f.id)
		c.mu.Unlock()
		if idle {
			return connError(ProtocolError, "WINDOW_UPDATE on an idle stream")
		}
		return nil
	}
	shut := s.sendWindow <= 0
	s.sendWindow += n
	over, wake := s.sendWindow > windowMax, s.starved && shut && s.sendWindow > 0
	if wake {
		s.fedLocked()
	}
	c.mu.Unlock()
	if over {
		s.fail(&c.batch, FlowControlError, "a stream's window over 2^31-1")
		return nil
	}
	if wake {
		s.deliver(Event{Kind: Writable, Batch: &c.batch})
	}
	return nil
}

func (c *Conn) connWindow(n int64) error {
	if n == 0 {
		return connError(ProtocolError, "WINDOW_UPDATE of 0")
	}
	c.mu.Lock()
	if !c.spendLocked() {
		if err := c.countControl(); err != nil {
			c.mu.Unlock()
			return err
		}
	}
	c.sendWindow += n
	if c.sendWindow > windowMax {
		c.mu.Unlock()
		return connError(FlowControlError, "the connection's window over 2^31-1")
	}
	c.mu.Unlock()
	c.serve()
	return nil
}
