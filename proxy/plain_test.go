package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// plain hides that a connection is a socket: it is then served as on systems without the raw path.
type plain struct{ net.Conn }

func (c plain) CloseWrite() error { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }

type plainListener struct{ net.Listener }

func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return plain{c}, nil
}

func TestPlainConnections(t *testing.T) {
	node := newWorld(t, proxy.Config{}, inventory(), orders())
	node.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "%s %d", r.URL.Path, len(body))
	}))
	peers := node.listen()
	node.background(func(ctx context.Context) error { return node.p.ServePeer(ctx, plainListener{peers}) })
	w := newWorld(t, proxy.Config{Node: "none", Park: 20 * time.Millisecond, Peer: func(ctx context.Context, _ string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", peers.Addr().String())
		return plain{c}, err
	}}, inventory(), orders())
	l := w.listen()
	w.background(func(ctx context.Context) error {
		return w.p.ServeNamed(ctx, plainListener{l}, proxy.Source{Service: fleet.Operator}, "inventory", 80)
	})
	c, r := w.raw(l.Addr().String())
	for i := range 3 {
		for _, size := range []int{0, 100, 100_000} {
			fmt.Fprintf(c, "POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", i, size)
			time.Sleep(time.Millisecond)
			io.WriteString(c, strings.Repeat("x", size))
			if _, body := w.readResponse(r, "POST"); body != fmt.Sprintf("/%d %d", i, size) {
				t.Fatalf("%q", body)
			}
		}
		time.Sleep(50 * time.Millisecond) // longer than Park: such connections keep their goroutine
	}
	io.WriteString(c, strings.Repeat("GET /p HTTP/1.1\r\nHost: x\r\n\r\n", 10))
	for range 10 {
		if _, body := w.readResponse(r, "GET"); body != "/p 0" {
			t.Fatalf("%q", body)
		}
	}
}
