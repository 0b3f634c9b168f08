package h2

import "time"

// Shutdown lets the open streams end and takes no new ones, then closes. A server does it in two
// steps, so that a request that was on its way is still served (RFC 9113 section 6.8). It does not
// wait; see [Conn.Done].
func (c *Conn) Shutdown() {
	c.mu.Lock()
	if c.stage != open || c.stopping {
		c.mu.Unlock()
		return
	}
	if c.client {
		c.drainLocked()
	} else {
		c.stage = warned
		c.writer.out = appendGoAway(c.writer.out, idMax, NoError, "shutting down")
		c.writer.out = append(appendFrame(c.writer.out, 8, framePing, 0, 0), pingShutdown...)
		time.AfterFunc(time.Second, c.drain) // a peer that does not answer pings
	}
	c.mu.Unlock()
	c.flush()
}

const pingShutdown = "shutdown"

// drain is the second step of a shutdown.
func (c *Conn) drain() {
	c.mu.Lock()
	c.drainLocked()
	c.mu.Unlock()
	c.flush()
}

func (c *Conn) drainLocked() {
	if c.stage == draining || c.stopping {
		return
	}
	c.stage = draining
	if !c.client {
		c.writer.out = appendGoAway(c.writer.out, c.acceptedID, NoError, "shutting down")
	}
	c.drainedLocked()
}

// drainedLocked stops a connection that waited for its last stream.
func (c *Conn) drainedLocked() {
	if c.active == 0 && (c.stage == draining || c.gone && c.client) {
		c.stopLocked(NoError, "drained")
	}
}
