package h2

import "time"

// stalledLocked returns the streams whose peer has given them no window for [Config.Stall], pinned as those are
// that another goroutine than the reading one holds. A stream that is read and written as a file is, a tunnel
// say, may wait for as long as both of its ends like.
func (c *Conn) stalledLocked(every time.Duration) (stalled []*Stream) {
	if c.cfg.Stall == 0 {
		return nil
	}
	for _, s := range c.streams {
		if !s.starved || s.receiver == nil && s.tail == nil {
			continue
		}
		if s.waits++; time.Duration(s.waits-1)*every >= c.cfg.Stall {
			s.pins++
			stalled = append(stalled, s)
		}
	}
	return stalled
}

// endStalled resets streams and tells their users; the caller does not hold the connection's mutex.
func (c *Conn) endStalled(stalled []*Stream) {
	if len(stalled) == 0 {
		return
	}
	b := Batch{}
	for _, s := range stalled {
		err := &StreamError{Code: EnhanceYourCalm, Reason: "no window came for " + c.cfg.Stall.String() + " (limits: idle)", Stalled: true}
		c.mu.Lock()
		s.tail = nil
		did := s.resetLocked(&b, err)
		c.mu.Unlock()
		if did {
			s.deliver(Event{Kind: Closed, Batch: &b, Err: err})
		}
	}
	b.flush()
	c.mu.Lock()
	for _, s := range stalled {
		s.pins--
	}
	c.mu.Unlock()
}
