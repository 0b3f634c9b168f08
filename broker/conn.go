package broker

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Conns is a listener for connections that are handed over, not accepted. Close closes those that nobody has taken.
type Conns struct {
	name   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// NewConns returns a listener for the name that connections were made to.
func NewConns(name string) *Conns {
	return &Conns{name: name, conns: make(chan net.Conn, 64), closed: make(chan struct{})}
}

// Push hands a connection over, or closes it where the listener is closed.
func (l *Conns) Push(c net.Conn) {
	select {
	case <-l.closed:
	case l.conns <- c:
		return
	}
	_ = c.Close()
}

// Accept waits for a connection.
func (l *Conns) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept; what is pushed from now on is closed.
func (l *Conns) Close() error {
	l.once.Do(func() { close(l.closed) })
	for {
		select {
		case c := <-l.conns:
			_ = c.Close()
		default:
			return nil
		}
	}
}

// Addr names what connections were made to.
func (l *Conns) Addr() net.Addr { return &net.UnixAddr{Name: l.name, Net: "unix"} }

// newServer serves handed-over connections: HTTP/1.1, and HTTP/2 with prior knowledge.
func (b *Broker) newServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: b.handler, ConnContext: b.ConnContext, Protocols: protocols,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: maxAttributes + 8<<10,
		ErrorLog: slog.NewLogLogger(b.config.Log.Handler(), slog.LevelDebug),
	}
}
