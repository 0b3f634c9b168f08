// Package mesh joins the processes of a fleet from machine to machine: one TLS port each, on which
// several protocols are spoken, and connections that know who is at their other end.
//
// It stands under the walks of a call and of a change: calls between nodes ([PeerProtocol]), the link
// of a node to its hub ([LinkProtocol]), what the operator asks of a node by way of the hub
// ([OperatorProtocol]), and the two doors of identity for who has no valid certificate. On one machine the
// same is spoken over Unix sockets, and nothing of this package is open.
//
// A [Net] and its lanes are safe for concurrent use.
package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/shoalrun/shoal/identity"
	"github.com/shoalrun/shoal/wire/h2"
)

// The protocols (ALPN, RFC 7301) that members of a fleet speak with each other.
const (
	LinkProtocol     = "shoal-link"     // shoal.peer.v1, a node to its hub
	PeerProtocol     = "shoal-peer"     // calls, from proxy to proxy
	OperatorProtocol = "shoal-operator" // shoal.operator.v1, the hub to a node
)

// handshakeTimeout bounds a TLS handshake; a connection that says nothing is closed after it.
const handshakeTimeout = 10 * time.Second

// handshakes bounds how many are in progress on one port: who opens connections and says nothing
// must not take the memory of those who do.
const handshakes = 512

// Net is the fleet as one process reaches it, and is reached.
type Net struct {
	source *identity.Source
	log    *slog.Logger

	mu    sync.Mutex // guards what follows
	lanes []*lane
	open  map[*Conn]struct{}
}

// New returns a net that speaks with the identity of source. log may be nil: slog.Default.
func New(source *identity.Source, log *slog.Logger) *Net {
	if log == nil {
		log = slog.Default()
	}
	return &Net{source: source, log: log, open: make(map[*Conn]struct{})}
}

// Conn is a TLS connection whose other end has proved who it is. It has no method ConnectionState: by
// that package net/http would take it for one whose protocol it has negotiated itself.
type Conn struct {
	net.Conn
	tls  *tls.Conn
	net  *Net
	id   identity.ID
	once sync.Once
}

// ID returns who is at the other end; the zero ID where that may only join or renew.
func (c *Conn) ID() identity.ID { return c.id }

// State returns the state of TLS.
func (c *Conn) State() tls.ConnectionState { return c.tls.ConnectionState() }

// NetConn returns the connection beneath TLS.
func (c *Conn) NetConn() net.Conn { return c.tls.NetConn() }

// CloseWrite ends what this side says.
func (c *Conn) CloseWrite() error { return c.tls.CloseWrite() }

// Peer returns the name of the node at the other end, or `hub`.
func (c *Conn) Peer() string {
	if c.id.Kind == identity.KindHub {
		return string(identity.KindHub)
	}
	return c.id.Name
}

// Close closes the connection.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		delete(c.net.open, c)
	})
	return c.Conn.Close()
}

// adopt makes a connection of one whose handshake is complete. Run may have looked for those of a member that was
// revoked during the handshake just before: then this one is closed here.
func (n *Net) adopt(t *tls.Conn) *Conn {
	c := &Conn{Conn: t, tls: t, net: n}
	c.id, _ = identity.PeerID(t.ConnectionState()) // the doors of join and renewal have none
	n.mu.Lock()
	n.open[c] = struct{}{}
	n.mu.Unlock()
	if n.source.Revoked(c.State()) {
		_ = c.Close()
	}
	return c
}

// Dial connects to address and completes the handshake that config, one of the source's, asks for.
func (n *Net) Dial(ctx context.Context, address string, config *tls.Config) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	t := tls.Client(h2.Beneath(raw), config)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("the TLS handshake with %s: %w", address, err), raw.Close())
	}
	return n.adopt(t), nil
}

// Run closes the connections of members that were revoked, until ctx ends.
func (n *Net) Run(ctx context.Context) error {
	for {
		changed := n.source.Changed()
		n.closeRevoked()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (n *Net) closeRevoked() {
	for _, c := range n.connections() {
		if n.source.Revoked(c.State()) {
			n.log.Warn("a connection of a revoked member is closed", "peer", c.id)
			_ = c.Close()
		}
	}
}

func (n *Net) connections() []*Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make([]*Conn, 0, len(n.open))
	for c := range n.open {
		all = append(all, c)
	}
	return all
}

// WantNode accepts one node.
func WantNode(name string) func(identity.ID) error {
	return func(id identity.ID) error {
		if id.Kind != identity.KindNode || id.Name != name {
			return fmt.Errorf("the machine at that address is %s, not node %s", id, name)
		}
		return nil
	}
}

// Address is how a port is called from elsewhere: HOST:PORT, without a host where it listens on all of the
// machine's. Whoever calls completes that by [Beside].
func Address(port net.Addr) string {
	host, number, err := net.SplitHostPort(port.String())
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsUnspecified() {
		return port.String()
	}
	return net.JoinHostPort("", number)
}

// Beside completes an address that lacks its host by that of another, on the same machine.
func Beside(address, other string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host != "" {
		return address
	}
	host, _, _ = net.SplitHostPort(other)
	return net.JoinHostPort(host, port)
}
