package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// An answer that breaks off ends its connection by a reset, also where the request's body has not come whole: an
// orderly end is the end of an answer without a length.
func TestBrokenAnswersEndInAReset(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	l := w.listen()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
				}
			}()
		}
	}()
	w.p.Attach("inventory-1", dialTo(l.Addr().String()))
	for name, addr := range map[string]string{
		"one hop":   w.named("inventory", 8080),
		"two nodes": w.behindAnother(proxy.Config{}, func(*fleet.Service) {}),
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{t: t}
			c, r := w.raw(addr)
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: inventory\r\nContent-Length: 100000\r\n\r\nabc")
			res, err := http.ReadResponse(r, nil)
			if err == nil {
				_, err = io.ReadAll(res.Body)
			}
			if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the end was orderly: %v", err)
			}
		})
	}
}

// A node that refuses a call because its time is over says so at about the time at which its caller gives up,
// too: what it says comes whole, or not at all.
func TestRefusalOfAPeerAtTheDeadline(t *testing.T) {
	const timeout = 100 * time.Millisecond
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	peer := &http.Server{Protocols: speaking("HTTP/2"), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		late := time.NewTimer(2 * timeout)
		w.Header().Set("Shoal-Reason", "too-slow")
		w.Header().Set("Content-Length", "5")
		w.WriteHeader(408)
		_ = http.NewResponseController(w).Flush()
		<-late.C
		_, _ = io.WriteString(w, "slow\n")
	})}
	go func() { _ = peer.Serve(l) }()
	t.Cleanup(func() { peer.Close() })
	caller := orders(func(s *fleet.Service) {
		s.Manifest.Calls[0].Timeout = fleet.Duration(timeout)
		s.Endpoints[0].Node = "far"
	})
	w := newWorld(t, proxy.Config{Node: "far", Peer: func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}}, inventory(), caller)
	addr := w.named("inventory", 8080)
	for name, client := range map[string]*http.Client{"HTTP/1.1": w.client(), "HTTP/2": h2c(t)} {
		t.Run(name, func(t *testing.T) {
			res, err := client.Get("http://" + addr)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode == 408 && string(body) != "slow\n" {
				t.Errorf("%s %q %v", res.Status, body, err)
			}
		})
	}
}
