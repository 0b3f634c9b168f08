package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/shoalrun/shoal/wire/h2"
)

// peerName is what a connection that [Proxy.ServePeer] accepts tells where the one at its other end has
// proved who it is: a node's name, or "hub". A connection without it is taken at its word, which is
// right only where the operating system lets nobody else connect (a Unix socket of mode 0600).
type peerName interface{ Peer() string }

// PeerListener makes l one for [Proxy.ServePeer]: TLS by config, which must ask for a certificate and
// verify it, and each connection telling its peer's name, which name takes from the verified state.
// Hands are shaken by whoever serves the connection, so that a slow peer holds up no other.
func PeerListener(l net.Listener, config *tls.Config, name func(tls.ConnectionState) (string, error)) net.Listener {
	return &peerListener{l, config, name}
}

type peerListener struct {
	net.Listener
	config *tls.Config
	name   func(tls.ConnectionState) (string, error)
}

func (l *peerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &peerConn{Conn: tls.Server(h2.Beneath(c), l.config), named: l.name}, nil
}

// peerConn is a TLS connection that knows who is at its other end.
type peerConn struct {
	*tls.Conn
	named func(tls.ConnectionState) (string, error)
	peer  string
}

func (c *peerConn) HandshakeContext(ctx context.Context) error {
	if err := c.Conn.HandshakeContext(ctx); err != nil {
		return err
	}
	name, err := c.named(c.ConnectionState())
	if err == nil && name == "" {
		err = fmt.Errorf("the certificate of %s names no node", c.RemoteAddr())
	}
	c.peer = name
	return err
}

// Peer returns the name that the certificate proves; empty before the handshake.
func (c *peerConn) Peer() string { return c.peer }

// SecurePeer shakes hands as a client over c, for [Config.Peer]. config must verify that the other end is
// the node that was meant. It closes c if that fails.
func SecurePeer(ctx context.Context, c net.Conn, config *tls.Config) (net.Conn, error) {
	t := tls.Client(h2.Beneath(c), config)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("TLS with %s: %w", c.RemoteAddr(), err)
	}
	return t, nil
}

// shakeHands bounds how long a peer may take to prove who it is.
const shakeHands = 5 * time.Second

// servePeer serves another process's proxy, once it has proved who it is.
func (l *listener) servePeer(c net.Conn) {
	if t, ok := c.(interface{ HandshakeContext(context.Context) error }); ok {
		ctx, cancel := context.WithTimeout(l.p.ctx, shakeHands)
		err := t.HandshakeContext(ctx)
		cancel()
		if err != nil {
			c.Close()
			return
		}
	}
	s := &http2Session{p: l.p, from: l, nc: c}
	s.serve(l.p.peerConfig(nil), nil)
}
