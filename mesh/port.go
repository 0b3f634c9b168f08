package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/shoalrun/shoal/identity"
	"github.com/shoalrun/shoal/wire/h2"
)

// lane is a net.Listener of the connections that speak one protocol. They all arrive at one port.
type lane struct {
	protocol string
	config   *tls.Config
	conns    chan net.Conn
	closed   chan struct{}
}

// Lane returns a listener of the connections that speak protocol and that config, one of the source's,
// lets in. Lanes are made before Serve.
func (n *Net) Lane(protocol string, config *tls.Config) net.Listener {
	l := &lane{protocol: protocol, config: config, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lanes = append(n.lanes, l)
	return l
}

func (l *lane) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close makes Accept return. The port goes on with its other lanes.
func (l *lane) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *lane) Addr() net.Addr { return laneAddr{l.protocol} }

type laneAddr struct{ protocol string }

func (laneAddr) Network() string  { return "tls" }
func (a laneAddr) String() string { return a.protocol }

// Serve accepts connections of l and hands each, once its handshake is complete, to its lane, until ctx
// ends, which closes l and the lanes, or l fails.
func (n *Net) Serve(ctx context.Context, l net.Listener) error {
	n.mu.Lock()
	lanes := slices.Clone(n.lanes)
	n.mu.Unlock()
	configs := make([]*tls.Config, 0, len(lanes))
	for _, one := range lanes {
		configs = append(configs, one.config)
	}
	config := identity.ByProtocol(configs...)
	stop := context.AfterFunc(ctx, func() {
		_ = l.Close()
		for _, one := range lanes {
			_ = one.Close()
		}
	})
	defer stop()
	turns := make(chan struct{}, handshakes)
	for {
		raw, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // too many open files, say
			time.Sleep(acceptPause)
			continue
		}
		turns <- struct{}{}
		go func() {
			defer func() { <-turns }()
			n.handshake(ctx, lanes, tls.Server(h2.Beneath(raw), config))
		}()
	}
}

// acceptPause is how long a port that cannot accept waits before it tries again.
const acceptPause = 20 * time.Millisecond

// handshake completes the handshake of a connection and gives it to its lane.
func (n *Net) handshake(ctx context.Context, lanes []*lane, t *tls.Conn) {
	bounded, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := t.HandshakeContext(bounded); err != nil {
		n.log.Debug("a connection was refused", "from", t.RemoteAddr(), "error", err)
		_ = t.Close()
		return
	}
	protocol := t.ConnectionState().NegotiatedProtocol
	i := slices.IndexFunc(lanes, func(l *lane) bool { return l.protocol == protocol })
	if i < 0 {
		_ = t.Close()
		return
	}
	c := n.adopt(t)
	select {
	case lanes[i].conns <- c:
	case <-lanes[i].closed:
		_ = c.Close()
	}
}
