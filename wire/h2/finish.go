package h2

import (
	"errors"
	"time"
)

// finish ends what is left after the reading goroutine: streams, output, the socket.
func (c *Conn) finish(err error) error {
	if errors.Is(err, errStopped) {
		err = nil
	}
	var ce *ConnError
	c.mu.Lock()
	if errors.As(err, &ce) {
		c.writer.out = appendGoAway(c.writer.out, c.acceptedID, ce.Code, ce.Reason)
	}
	c.stopping = true
	if err == nil {
		err = c.err // the tick found the peer dead
	}
	c.err = err
	c.heardLocked()
	c.timer.Stop()
	left := make([]*Stream, 0, len(c.streams))
	why, unsent := lost(err), lost(err)
	unsent.Unprocessed = true
	for _, s := range c.streams {
		left = append(left, s)
		if s.err = why; c.client && s.opened == c.writer.taken {
			s.err = unsent // the request never left this process
		}
		s.closeLocked(false)
	}
	c.mu.Unlock()
	for _, s := range left {
		s.deliver(Event{Kind: Closed, Batch: &c.batch, Err: s.err})
	}
	c.batch.flushOthers()
	c.lastWords(ce != nil)
	_ = c.nc.Close()
	close(c.done)
	return err
}

// lost is what streams are told when their connection ended.
func lost(err error) *StreamError {
	reason := "the connection closed"
	if err != nil {
		reason = "the connection was lost: " + err.Error()
	}
	return &StreamError{Code: InternalError, Reason: reason, Remote: true, Lost: true, Stalled: errors.Is(err, errStalled)}
}

// lastWords writes what is still to be said, for at most a second; after an error it reads on for a
// moment, since closing a socket with unread bytes takes the GOAWAY back.
func (c *Conn) lastWords(failed bool) {
	_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	c.mu.Lock()
	c.writer.last = true
	c.mu.Unlock()
	c.flush()
	c.mu.Lock()
	for c.writer.writing || c.writer.blocked {
		c.writer.quiet.Wait()
	}
	c.mu.Unlock()
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !failed || !ok {
		return
	}
	_ = half.CloseWrite()
	_ = c.nc.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	var sink [4096]byte
	for range 64 {
		if _, err := c.nc.Read(sink[:]); err != nil {
			return
		}
	}
}
