package proxy_test

import (
	"bytes"
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

// A body that comes after its head is sent again, too, while it is small.
func TestReplayOfAStreamedBody(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(instances("a", "b")), orders())
	bad, seen := flaky(t, 0)
	w.p.Attach("a", dialTo(bad))
	w.attach("b", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { io.Copy(rw, r.Body) }))
	addr := w.named("inventory", 80)
	for i := 0; i < 100 && (i < 10 || seen.Load() < 3); i++ {
		c, r := w.raw(addr)
		fmt.Fprint(c, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01")
		time.Sleep(5 * time.Millisecond)
		fmt.Fprint(c, "234")
		time.Sleep(5 * time.Millisecond)
		fmt.Fprint(c, "56789")
		if res, body := w.readResponse(r, "PUT"); res.StatusCode != 200 || body != "0123456789" {
			t.Fatalf("%s %q", res.Status, body)
		}
		c.Close()
	}
	if seen.Load() == 0 {
		t.Error("the failing instance was never asked")
	}
}

func TestNoReplayOfALargeBody(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	l := w.listen()
	defer l.Close()
	tries := make(chan bool, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			body := make([]byte, 200_000)
			if n, _ := io.ReadFull(c, body); !asksForHTTP2(body[:n]) {
				tries <- true
			}
			c.Close()
		}
	}()
	w.p.Attach("inventory-1", dialTo(l.Addr().String()))
	r := must(http.NewRequest("PUT", "http://"+w.named("inventory", 80), bytes.NewReader(make([]byte, 300_000))))
	if res, _ := w.do(r); res.StatusCode != 502 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonUpstreamReset) {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	if len(tries) != 1 {
		t.Errorf("sent %d times", len(tries))
	}
}

// In steady state a request allocates nothing.
func TestCallsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and makes pools forget")
	}
	t.Run("plain", func(t *testing.T) { withoutAllocations(t, inventory()) })
	t.Run("rated", func(t *testing.T) { withoutAllocations(t, inventory(rated(1_000_000, time.Second, 1_000_000))) })
	t.Run("routed", func(t *testing.T) {
		withoutAllocations(t, inventory(routed(
			fleet.Route{Name: "other", Match: fleet.Match{Path: "/a", Methods: []string{"PUT"}}},
			fleet.Route{Name: "split", Match: fleet.Match{Path: "/*", Headers: []fleet.HeaderMatch{{Name: "accept"}}},
				Split: []fleet.Share{{Service: "inventory", Weight: 1}, {Service: "inventory-next", Weight: 1}}, Sticky: fleet.Sticky{Cookie: "b"}},
		)))
	})
}

func withoutAllocations(t *testing.T, provider *fleet.Service) {
	w := newWorld(t, proxy.Config{}, provider, next(), orders())
	answer := dialTo(w.answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
	w.p.Attach("inventory-1", answer)
	w.p.Attach("inventory-next-1", answer)
	c, _ := w.raw(w.named("inventory", 80))
	ask, b := []byte("GET /a HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nCookie: a=1; b=2\r\n\r\n"), make([]byte, 4096)
	once := func() {
		c.Write(ask)
		for n := 0; !bytes.HasSuffix(b[:n], []byte("hello")); {
			m, err := c.Read(b[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
	}
	for range 20_000 { // fills the ring of records, whose slots are made when first used
		once()
	}
	if n := testing.AllocsPerRun(2000, once); n >= 1 {
		t.Errorf("%v allocations a request", n)
	}
}

// answering gives every read of a connection the same answer.
func (w *world) answering(text string) string {
	l := w.listen()
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerAll(c, []byte(text))
		}
	}()
	return l.Addr().String()
}

func answerAll(c net.Conn, text []byte) {
	defer c.Close()
	b := make([]byte, 64<<10)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
		c.Write(text)
	}
}

// A slow reader holds neither the application's answer in memory nor anybody else up.
func TestSlowReader(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	const size = 20 << 20
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			return
		}
		io.Copy(rw, io.LimitReader(strings.NewReader(strings.Repeat("x", size)), size))
	}))
	addr := w.named("inventory", 80)
	c, r := w.raw(addr)
	fmt.Fprint(c, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if res, _ := w.get("http://" + addr); res.StatusCode != 200 {
			t.Error(res.Status)
		}
	}
	if n, err := io.CopyN(io.Discard, r, size); err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
