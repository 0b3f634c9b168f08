package h2

import (
	"net"
	"sync/atomic"
)

// transport moves a connection's bytes.
type transport interface {
	// run feeds c with what is read, until an error, which it returns.
	run(c *Conn) error
	// tryWrite writes what the socket takes of p without waiting. Where that is not all, somebody must
	// wait, by writeRest.
	tryWrite(p []byte) (all bool, err error)
	// writeRest waits until what tryWrite left of p is written. before is called before each piece.
	writeRest(p []byte, before func()) error
	// confirmed is how many bytes in all the peer's system has taken; where nothing tells, how many were
	// written.
	confirmed() int64
	// written is how many bytes were written in all.
	written() int64
}

// pieces writes p in pieces, so that each can have a deadline of its own, and counts them.
func pieces(nc net.Conn, p []byte, before func(), sent *atomic.Int64) error {
	for len(p) > 0 {
		n := min(len(p), keepBuffer)
		before()
		n, err := nc.Write(p[:n])
		sent.Add(int64(n))
		if p = p[n:]; err != nil && (n == 0 || !deadline(err)) {
			return err
		}
	}
	return nil
}

// plain is a transport for connections that offer nothing better than blocking calls: TLS, pipes in
// memory, other systems.
type plain struct {
	nc   net.Conn
	sent atomic.Int64
}

func (t *plain) run(c *Conn) error {
	for {
		n, err := t.nc.Read(c.space())
		if n > 0 {
			if err := c.feed(n); err != nil {
				return err
			}
		}
		c.rest()
		if c.isStopping() {
			return errStopped
		}
		if err != nil && !deadline(err) {
			return closedBy(err)
		}
		if err != nil {
			if err := rearm(c); err != nil {
				return err
			}
		}
	}
}

// tryWrite leaves all of it to a goroutine that may wait.
func (t *plain) tryWrite([]byte) (bool, error) { return false, nil }

func (t *plain) writeRest(p []byte, before func()) error { return pieces(t.nc, p, before, &t.sent) }

func (t *plain) confirmed() int64 { return t.sent.Load() }

func (t *plain) written() int64 { return t.sent.Load() }
