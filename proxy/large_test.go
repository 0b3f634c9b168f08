package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalrun/shoal/proxy"
)

// largeApp answers /N with N bytes of content, and what follows in its own way: /N/cut ends the connection
// half-way, /N/more sends bytes that belong to no answer. It counts its connections.
type largeApp struct {
	content []byte
	conns   atomic.Int32
}

func (a *largeApp) serve(w *world) {
	l := w.listen()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			a.conns.Add(1)
			go a.answer(c)
		}
	}()
	w.p.Attach("inventory-1", dialTo(l.Addr().String()))
}

func (a *largeApp) answer(c net.Conn) {
	defer c.Close()
	for in := bufio.NewReader(c); ; {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		n, how := 0, ""
		_, _ = fmt.Sscanf(r.URL.Path, "/%d/%s", &n, &how) // how may be missing
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", n)
		switch how {
		case "cut":
			_, _ = c.Write(a.content[:n/2])
			return
		case "more":
			_, _ = c.Write(append(bytes.Clone(a.content[:n]), "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"...))
		default:
			_, _ = c.Write(a.content[:n])
		}
	}
}

func newLarge(t *testing.T, c proxy.Config) (*world, *largeApp, string) {
	w := newWorld(t, c, inventory(), orders())
	a := &largeApp{content: make([]byte, 9<<20)}
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(a.content)
	a.serve(w)
	return w, a, w.named("inventory", 8080)
}

// Large answers come through as they are, one after the other on the same connections.
func TestLargeAnswers(t *testing.T) {
	w, a, addr := newLarge(t, proxy.Config{})
	c, in := w.raw(addr)
	for _, n := range []int{9 << 20, 100, 1 << 20, 128 << 10, 300<<10 + 1, 64 << 10, 5 << 20} {
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: inventory\r\nX-Request-Id: large-%d\r\n\r\n", n, n)
		_, body := w.readResponse(in, "GET")
		if body != string(a.content[:n]) {
			t.Fatalf("%d bytes, not as they were sent", len(body))
		}
		if o := w.observed(fmt.Sprint("large-", n)); o.BytesOut < int64(n) || o.BytesOut > int64(n+1000) {
			t.Errorf("observed %d bytes of %d", o.BytesOut, n)
		}
	}
	if n := a.conns.Load(); n != 1 {
		t.Errorf("%d connections to the application", n)
	}
}

// An answer that breaks off is no whole one, and what follows an answer is none.
func TestLargeAnswersThatEndWrongly(t *testing.T) {
	w, a, addr := newLarge(t, proxy.Config{})
	in := w.ask(addr, "/2000000/cut", "cut")
	if _, err := readAll(in); err == nil {
		t.Error("an answer that was cut is taken for a whole one")
	}
	if o := w.observed("cut"); o.Reason != "upstream-reset" {
		t.Errorf("%+v", o)
	}
	for range 2 {
		in = w.ask(addr, "/2000000/more", "more")
		if body, err := readAll(in); err != nil || body != string(a.content[:2000000]) {
			t.Errorf("%d bytes, %v", len(body), err)
		}
	}
}

// A caller that takes nothing of a large answer is given up, and it is recorded that it was the slow one.
func TestLargeAnswersThatNobodyTakes(t *testing.T) {
	w, _, addr := newLarge(t, proxy.Config{Idle: 200 * time.Millisecond})
	w.ask(addr, "/9000000", "deaf")
	if o := w.observed("deaf"); o.Reason != "too-slow" {
		t.Errorf("%+v", o)
	}
}

func (w *world) ask(addr, path, id string) *bufio.Reader {
	c, in := w.raw(addr)
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: inventory\r\nX-Request-Id: %s\r\n\r\n", path, id)
	return in
}

func readAll(in *bufio.Reader) (string, error) {
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	_, err = io.Copy(&b, res.Body)
	return b.String(), err
}
