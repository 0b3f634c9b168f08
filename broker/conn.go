package broker

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// connListener is a listener for connections that are handed over, not accepted.
type connListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newConnListener() *connListener {
	return &connListener{conns: make(chan net.Conn, 64), closed: make(chan struct{})}
}

// push hands a connection over, or closes it where the listener is closed.
func (l *connListener) push(c net.Conn) {
	select {
	case <-l.closed:
	case l.conns <- c:
		return
	}
	_ = c.Close()
}

func (l *connListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *connListener) Close() error {
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

func (l *connListener) Addr() net.Addr { return &net.UnixAddr{Name: "events", Net: "unix"} }

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
