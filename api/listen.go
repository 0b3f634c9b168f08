package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// closeAfter is how long a closing server waits for requests that end by themselves.
const closeAfter = 2 * time.Second

// Listen makes a Unix socket that only its owner may open (0600). A socket file that nobody listens
// on any more is replaced; one that answers is an error.
func Listen(path string) (*net.UnixListener, error) {
	if len(path) > MaxSocketPath {
		return nil, fmt.Errorf("the socket %s has a path of %d bytes, and a socket's may have %d: set XDG_RUNTIME_DIR to a shorter folder", path, len(path), MaxSocketPath)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("another process answers on %s: `shoal status` shows the fleet that runs here, `shoal down` ends it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the socket that an earlier fleet left cannot be removed: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("the operator's socket cannot be made: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// ServeUnix listens on a Unix socket and serves h there, as [Serve] does.
func ServeUnix(ctx context.Context, path string, h http.Handler) error {
	l, err := Listen(path)
	if err != nil {
		return err
	}
	return Serve(ctx, l, h)
}

// Serve serves h over HTTP/1.1 and HTTP/2 without TLS to peers of the same uid and to root, until ctx
// ends; then it closes l, ends streams, and gives other requests 2 s. It returns nil where ctx ended it.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	return ServeProved(ctx, guarded{l}, h)
}

// ServeProved serves h as [Serve] does to peers whose right to ask l has made sure of.
func ServeProved(ctx context.Context, l net.Listener, h http.Handler) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	base := context.WithValue(context.WithoutCancel(ctx), closingKey{}, ctx)
	srv := &http.Server{
		Handler: h, Protocols: &protocols,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("the operator API stopped: %w", err)
	case <-ctx.Done():
	}
	bound, cancel := context.WithTimeout(base, closeAfter)
	defer cancel()
	if srv.Shutdown(bound) != nil {
		srv.Close()
	}
	<-done
	return nil
}

// Guard returns a listener of the connections of l whose peers are of the same uid, or root.
func Guard(l net.Listener) net.Listener { return guarded{l} }

// guarded accepts only connections of peers that may operate the fleet.
type guarded struct{ net.Listener }

// Accept returns the next connection of the same uid or root; it closes others without a word,
// since they are no operators and there is nothing that they could do about it.
func (g guarded) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if err := checkPeer(conn); err != nil {
			slog.Warn("refused a peer of the operator socket", "why", err)
			conn.Close()
			continue
		}
		return conn, nil
	}
}
