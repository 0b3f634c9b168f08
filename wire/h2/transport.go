package h2

import "net"

// transport moves a connection's bytes.
type transport interface {
	// run feeds c with what is read, until an error, which it returns.
	run(c *Conn) error
	// tryWrite writes what the socket takes without waiting. Fewer bytes than given, without an error,
	// mean that somebody must wait.
	tryWrite(p []byte) (int, error)
}

// plain is a transport for connections that offer nothing better than blocking calls: TLS, pipes in
// memory, other systems.
type plain struct{ nc net.Conn }

func (t plain) run(c *Conn) error {
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
func (t plain) tryWrite([]byte) (int, error) { return 0, nil }
