package proxy

import "net"

// callerConn is a connection to a builtin: it tells who calls.
type callerConn struct {
	net.Conn
	caller string
}

// Caller returns the service that calls.
func (c *callerConn) Caller() string { return c.caller }

// CloseWrite ends what the builtin has to say; what it reads goes on.
func (c *callerConn) CloseWrite() error {
	closeWrite(c.Conn)
	return nil
}

// dialBuiltin gives one end of a new connection to the function that serves the name, and returns the
// other. The connection is kept like any other, for the same caller.
func (pl *place) dialBuiltin(caller string) (net.Conn, error) {
	near, far, err := connPair()
	if err != nil {
		return nil, err
	}
	if !pl.p.enter() {
		near.Close()
		far.Close()
		return nil, net.ErrClosed
	}
	go func() {
		defer pl.p.leave()
		pl.builtin(&callerConn{far, caller})
	}()
	return near, nil
}
