package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"golang.org/x/net/http2"
)

// A WebSocket to an application that speaks HTTP/2 only and takes no extended CONNECT is refused in words, from
// wherever it comes.
func TestWebSocketThatNobodyTakes(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	far := w.behindAnother(proxy.Config{}, func(*fleet.Service) {})
	e := w.evil2(nil)
	e.taken.Store(true)
	const upgrade = "GET /chat HTTP/1.1\r\nHost: inventory\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	for name, addr := range map[string]string{"one hop": w.named("inventory", 8080), "two nodes": far} {
		t.Run(name+", HTTP/1.1", func(t *testing.T) {
			w := &world{t: t}
			for range 2 { // once not knowing what the application speaks
				res, body := w.exchangeRaw(addr, upgrade)
				if res.StatusCode != 502 || res.Header.Get("Shoal-Reason") != "upstream-malformed" {
					t.Error(res.Status, res.Header)
				}
				contains(t, body, "SETTINGS_ENABLE_CONNECT_PROTOCOL", "HTTP/2 only")
			}
		})
		t.Run(name+", HTTP/2", func(t *testing.T) {
			a := (&world{t: t}).attacker(addr)
			got := a.told(a.begin(false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/chat", ":authority", "inventory", "sec-websocket-version", "13"))
			if got.status != "502" || got.reason != "upstream-malformed" {
				t.Errorf("%+v", got)
			}
			contains(t, got.body, "SETTINGS_ENABLE_CONNECT_PROTOCOL")
		})
	}
}

// A CONNECT of HTTP/2 is a tunnel (RFC 9113 section 8.5): bytes both ways, each side's end by itself.
func TestConnectOverHTTP2(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(protocol(fleet.TCP)), orders())
	w.p.Attach("inventory-1", dialTo(w.echo().Addr().String()))
	l := w.listen()
	w.background(func(ctx context.Context) error {
		return w.p.ServeForward(ctx, l, proxy.Source{Service: "orders", Instance: "orders-1"})
	})
	a := w.attacker(l.Addr().String())
	id := a.begin(false, ":method", "CONNECT", ":authority", "inventory:8080", "x-request-id", "tunnel-1")
	text := strings.Repeat("0123456789", 3000)
	for part := text; len(part) > 0; part = part[10_000:] {
		_ = a.WriteData(id, false, []byte(part[:10_000]))
	}
	_ = a.WriteData(id, true, nil) // the rest of the answer comes after the end of the question
	if got := a.told(id); got.status != "200" || got.body != text+"end" || got.code != 0 {
		t.Errorf("status %s, %d bytes, %v", got.status, len(got.body), got.code)
	}
	if o := w.observed("tunnel-1"); o.Kind != fleet.KindStream || o.BytesIn != 30_000 || o.BytesOut != 30_003 || o.Failed() {
		t.Errorf("%+v", o)
	}
	if got := a.told(a.begin(false, ":method", "CONNECT", ":authority", "stranger:8080")); got.status != "404" || got.reason != "unknown-service" || got.id == "" {
		t.Errorf("%+v", got)
	}
}

// A tunnel whose caller resets it ends at the application as well.
func TestConnectOverHTTP2IsReset(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(protocol(fleet.TCP)), orders())
	app := w.listen()
	ended := make(chan error, 1)
	go func() {
		c, err := app.Accept()
		if err != nil {
			return
		}
		_, err = io.Copy(c, c)
		ended <- err
	}()
	w.p.Attach("inventory-1", dialTo(app.Addr().String()))
	l := w.listen()
	w.background(func(ctx context.Context) error {
		return w.p.ServeForward(ctx, l, proxy.Source{Service: "orders", Instance: "orders-1"})
	})
	a := w.attacker(l.Addr().String())
	id := a.begin(false, ":method", "CONNECT", ":authority", "inventory:8080")
	_ = a.WriteData(id, false, []byte("abc"))
	for got := ""; got != "abc"; {
		f, err := a.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*http2.DataFrame); ok {
			got += string(d.Data())
		}
	}
	_ = a.WriteRSTStream(id, http2.ErrCodeCancel)
	<-ended
}

// endings are how an application ends a stream, or its connection, in the middle of a request, and whether the
// request is then sent again: POST only where the application vouches for not having seen it (RFC 9113 section
// 8.7), GET in any case.
var endings = []struct {
	name  string
	does  func(c *evil2Conn, id uint32)
	again map[string]bool
}{
	{"REFUSED_STREAM", func(c *evil2Conn, id uint32) { _ = c.WriteRSTStream(id, http2.ErrCodeRefusedStream) }, map[string]bool{"GET": true, "POST": true}},
	{"GOAWAY below the stream", func(c *evil2Conn, _ uint32) { _ = c.WriteGoAway(0, http2.ErrCodeNo, nil) }, map[string]bool{"GET": true, "POST": true}},
	{"GOAWAY below the stream, and the end", func(c *evil2Conn, _ uint32) {
		_ = c.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte("enough"))
		_ = c.nc.Close()
	}, map[string]bool{"GET": true, "POST": true}},
	{"RST_STREAM", func(c *evil2Conn, id uint32) { _ = c.WriteRSTStream(id, http2.ErrCodeInternal) }, map[string]bool{"GET": true}},
	{"RST_STREAM with NO_ERROR", func(c *evil2Conn, id uint32) { _ = c.WriteRSTStream(id, http2.ErrCodeNo) }, map[string]bool{"GET": true}},
	{"GOAWAY above the stream, and the end", func(c *evil2Conn, id uint32) {
		_ = c.WriteGoAway(id, http2.ErrCodeInternal, nil)
		_ = c.nc.Close()
	}, map[string]bool{"GET": true}},
	{"the end of the connection", func(c *evil2Conn, _ uint32) { _ = c.nc.Close() }, map[string]bool{"GET": true}},
	{"a reset of the connection", func(c *evil2Conn, _ uint32) {
		_ = c.nc.(*net.TCPConn).SetLinger(0)
		_ = c.nc.Close()
	}, map[string]bool{"GET": true}},
}

func TestApplicationEndsTheStream(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	addr := w.named("inventory", 8080)
	for version, client := range map[string]*http.Client{"HTTP/1.1": w.client(), "HTTP/2": h2c(t)} {
		for _, e := range endings {
			for _, method := range []string{"GET", "POST"} {
				t.Run(fmt.Sprintf("%s by %s, %s", method, version, e.name), func(t *testing.T) {
					w := &world{t: t, p: w.p}
					app := w.evil2(e.does)
					res, body, err := ask(client, method, "http://"+addr)
					if err != nil {
						t.Fatal(err)
					}
					again := res.StatusCode == 200 && body == "next"
					refused := res.StatusCode == 502 && res.Header.Get("Shoal-Reason") == "upstream-reset"
					if again != e.again[method] || again == refused || !app.taken.Load() {
						t.Errorf("%s %q", res.Status, body)
					}
				})
			}
		}
	}
}

// GOAWAY that spares the stream lets it end in peace, and the next request takes another connection.
func TestGoAwayOfAnApplicationSparesWhatItSaw(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	e := w.evil2(func(c *evil2Conn, id uint32) {
		_ = c.WriteGoAway(id, http2.ErrCodeNo, nil)
		_ = c.WritePing(false, [8]byte{1})
		c.head(id, false, ":status", "200")
		_ = c.WriteData(id, true, []byte("ok"))
	})
	client, url := h2c(t), "http://"+w.named("inventory", 8080)
	for _, want := range []string{"ok", "next", "next"} {
		if _, body, err := ask(client, "POST", url); err != nil || body != want {
			t.Fatal(body, err)
		}
	}
	if n := e.conns.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
	if got := <-e.pongs; got != [8]byte{1} {
		t.Error("its PING came back as", got)
	}
}

// What a caller says about its connection is heeded: its PING is answered, a stream that it resets is reset at the
// application, and one that it has when it says GOAWAY is answered.
func TestCallerEndsTheStream(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	seen := make(chan uint32, 10)
	e := w.evil2(func(_ *evil2Conn, id uint32) { seen <- id })
	a := w.attacker(w.named("inventory", 8080))
	id := a.ask("/", true)
	at := <-seen
	_ = a.WritePing(false, [8]byte{7})
	for {
		f, err := a.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := f.(*http2.PingFrame); ok && p.IsAck() && p.Data == [8]byte{7} {
			break
		}
	}
	_ = a.WriteRSTStream(id, http2.ErrCodeCancel)
	if got := <-e.resets; got != at {
		t.Errorf("stream %d was reset, and not %d", got, at)
	}
	last := a.ask("/", true)
	_ = a.WriteGoAway(0, http2.ErrCodeNo, nil)
	if got := a.told(last); got.status != "200" || got.body != "next" {
		t.Errorf("a caller that goes should hear what it asked for: %+v", got)
	}
}

// An application closes its idle connection in the moment in which it is asked: what may be sent again is, on a
// connection of its own, and nothing is asked twice that may not be.
func TestIdleConnectionThatCloses(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	l := w.listen()
	t.Cleanup(func() { l.Close() })
	var asked atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // answers one request, and closes as the second comes
				defer c.Close()
				in := bufio.NewReader(c)
				if first, err := in.Peek(3); err != nil || string(first) == "PRI" {
					return
				}
				for n := range 2 {
					r, err := http.ReadRequest(in)
					if err != nil || n == 1 {
						return
					}
					asked.Add(1)
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			}()
		}
	}()
	w.p.Attach("inventory-1", dialTo(l.Addr().String()))
	addr := w.named("inventory", 8080)
	for version, client := range map[string]*http.Client{"HTTP/1.1": w.client(), "HTTP/2": h2c(t)} {
		for n := range 20 {
			before := asked.Load()
			res, body, err := ask(client, "GET", "http://"+addr)
			if err != nil || res.StatusCode != 200 || body != "ok" {
				t.Fatalf("%s, GET %d: %v %v %q", version, n, err, res, body)
			}
			res, body, err = ask(client, "POST", "http://"+addr)
			if err != nil || res.StatusCode != 200 && res.Header.Get("Shoal-Reason") != "upstream-reset" {
				t.Fatalf("%s, POST %d: %v %v %q", version, n, err, res, body)
			}
			if done := asked.Load() - before; done > 2 {
				t.Fatalf("%d requests were answered where 2 were made", done)
			}
		}
	}
}
