package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shoalrun/shoal/proxy"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// evil2 is an application that speaks HTTP/2 only, answers its first request as a test likes, and every other one
// with `next`.
type evil2 struct {
	says   func(c *evil2Conn, stream uint32)
	taken  atomic.Bool
	resets chan uint32 // of streams, as they come
	pongs  chan [8]byte
	conns  atomic.Int64
}

// evil2Conn is one of its connections.
type evil2Conn struct {
	*http2.Framer
	nc    net.Conn
	enc   *hpack.Encoder
	block bytes.Buffer
}

func (w *world) evil2(says func(c *evil2Conn, stream uint32)) *evil2 {
	l := w.listen()
	w.t.Cleanup(func() { l.Close() })
	e := &evil2{says: says, resets: make(chan uint32, 100), pongs: make(chan [8]byte, 100)}
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			w.t.Cleanup(func() { nc.Close() })
			e.conns.Add(1)
			go e.serve(nc)
		}
	}()
	w.p.Attach("inventory-1", dialTo(l.Addr().String()))
	return e
}

func (e *evil2) serve(nc net.Conn) {
	defer nc.Close()
	c := &evil2Conn{Framer: http2.NewFramer(nc, nc), nc: nc}
	c.enc = hpack.NewEncoder(&c.block)
	first := make([]byte, len(http2.ClientPreface))
	_, err := io.ReadFull(nc, first)
	_ = c.WriteSettings()
	if err != nil || string(first) != http2.ClientPreface {
		_ = nc.(*net.TCPConn).CloseWrite() // its settings told what it speaks
		_, _ = io.Copy(io.Discard, nc)
		return
	}
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = c.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if f.IsAck() {
				e.pongs <- f.Data
				continue
			}
			_ = c.WritePing(true, f.Data)
		case *http2.RSTStreamFrame:
			e.resets <- f.StreamID
		case *http2.HeadersFrame:
			if !e.taken.Swap(true) {
				e.says(c, f.StreamID)
				continue
			}
			c.head(f.StreamID, false, ":status", "200")
			_ = c.WriteData(f.StreamID, true, []byte("next"))
		}
	}
}

// head sends a header list of names and values.
func (c *evil2Conn) head(stream uint32, end bool, pairs ...string) {
	c.block.Reset()
	for ; len(pairs) > 0; pairs = pairs[2:] {
		_ = c.enc.WriteField(hpack.HeaderField{Name: pairs[0], Value: pairs[1]})
	}
	block := c.block.Bytes()
	first := block[:min(len(block), 16<<10)]
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(block)})
	for block = block[len(first):]; len(block) > 0; {
		n := min(len(block), 16<<10)
		_ = c.WriteContinuation(stream, n == len(block), block[:n])
		block = block[n:]
	}
}

// evil2Answer is what an application says in HTTP/2. Its answer is refused, but where it begins before it turns
// out to be none: then it breaks off.
type evil2Answer struct {
	name   string
	head   []string // and the end of the stream
	says   func(c *evil2Conn, stream uint32)
	method string
	begins bool
	reason string // upstream-malformed where it is empty
	passes string // the body of an answer that passes
}

func evil2Answers() []evil2Answer {
	good := func(c *evil2Conn, id uint32) { c.head(id, false, ":status", "200") }
	return []evil2Answer{
		// Pseudo-header fields (RFC 9113 section 8.3).
		{name: "no status", head: []string{"a", "b"}},
		{name: "two statuses", head: []string{":status", "200", ":status", "200"}},
		{name: "status of two digits", head: []string{":status", "20"}},
		{name: "status of four digits", head: []string{":status", "2000"}},
		{name: "status in letters", head: []string{":status", "abc"}},
		{name: "empty status", head: []string{":status", ""}},
		{name: "status 101", head: []string{":status", "101"}},
		{name: "status behind a field", head: []string{"a", "b", ":status", "200"}},
		{name: "a request's field", head: []string{":status", "200", ":path", "/"}},
		{name: "unknown pseudo", head: []string{":status", "200", ":what", "a"}},
		// Names and values (section 8.2.1).
		{name: "upper case", head: []string{":status", "200", "X-A", "b"}},
		{name: "CR LF in a value", head: []string{":status", "200", "a", "b\r\nContent-Length: 5"}},
		{name: "LF in a value", head: []string{":status", "200", "a", "b\nc"}},
		{name: "NUL in a value", head: []string{":status", "200", "a", "b\x00"}},
		{name: "space before a value", head: []string{":status", "200", "a", " b"}},
		{name: "CR LF in a name", head: []string{":status", "200", "a\r\nb", "c"}},
		{name: "colon in a name", head: []string{":status", "200", "a:b", "c"}},
		{name: "space in a name", head: []string{":status", "200", "a b", "c"}},
		{name: "no name", head: []string{":status", "200", "", "c"}},
		// Fields of the connection (section 8.2.2).
		{name: "connection", head: []string{":status", "200", "connection", "close"}},
		{name: "keep-alive", head: []string{":status", "200", "keep-alive", "timeout=1"}},
		{name: "proxy-connection", head: []string{":status", "200", "proxy-connection", "close"}},
		{name: "transfer-encoding", head: []string{":status", "200", "transfer-encoding", "chunked"}},
		{name: "upgrade", head: []string{":status", "200", "upgrade", "h2c"}},
		// Lengths (section 8.1.1).
		{name: "two lengths", head: []string{":status", "200", "content-length", "0", "content-length", "1"}},
		{name: "two lengths, equal", head: []string{":status", "200", "content-length", "0", "content-length", "0"}},
		{name: "length, plus", head: []string{":status", "200", "content-length", "+0"}},
		{name: "length, empty", head: []string{":status", "200", "content-length", ""}},
		{name: "length, list", head: []string{":status", "200", "content-length", "0, 0"}},
		{name: "length and no body", head: []string{":status", "200", "content-length", "5"}},
		{name: "length under the body", begins: true, says: func(c *evil2Conn, id uint32) {
			c.head(id, false, ":status", "200", "content-length", "2")
			_ = c.WriteData(id, true, []byte("evil"))
		}},
		{name: "length over the body", begins: true, says: func(c *evil2Conn, id uint32) {
			c.head(id, false, ":status", "200", "content-length", "9")
			_ = c.WriteData(id, true, []byte("evil"))
		}},
		{name: "body on 204", begins: true, says: func(c *evil2Conn, id uint32) {
			c.head(id, false, ":status", "204")
			_ = c.WriteData(id, true, []byte("evil"))
		}},
		{name: "body on HEAD", begins: true, method: "HEAD", says: func(c *evil2Conn, id uint32) {
			c.head(id, false, ":status", "200", "content-length", "4")
			_ = c.WriteData(id, true, []byte("evil"))
		}},
		// Order (section 8.1).
		{name: "body before the head", says: func(c *evil2Conn, id uint32) { _ = c.WriteData(id, true, []byte("evil")) }},
		{name: "interim that ends", head: []string{":status", "103"}},
		{name: "interim flood", says: func(c *evil2Conn, id uint32) {
			for range 1000 {
				c.head(id, false, ":status", "103", "a", "b")
			}
		}},
		{name: "two heads", begins: true, says: func(c *evil2Conn, id uint32) { good(c, id); good(c, id) }},
		{name: "status in trailers", begins: true, says: func(c *evil2Conn, id uint32) { good(c, id); c.head(id, true, ":status", "200") }},
		{name: "length in trailers", begins: true, says: func(c *evil2Conn, id uint32) { good(c, id); c.head(id, true, "content-length", "5") }},
		{name: "frames behind the end", passes: "ok", says: func(c *evil2Conn, id uint32) {
			good(c, id)
			_ = c.WriteData(id, true, []byte("ok"))
			_ = c.WriteData(id, true, []byte("evil"))
			c.head(id, true, ":status", "200")
		}},
		// Limits, and what ends the connection.
		{name: "head over its limit", head: []string{":status", "200", "a", strings.Repeat("b", 70_000)}},
		{name: "too many fields", head: append([]string{":status", "200"}, strings.Split(strings.Repeat("a,b,", 300)+"a,b", ",")...)},
		{name: "answer to nobody", reason: "upstream-reset", says: func(c *evil2Conn, _ uint32) { c.head(999, true, ":status", "200") }},
		{name: "stream of even number", reason: "upstream-reset", says: func(c *evil2Conn, _ uint32) { c.head(2, true, ":status", "200") }},
		{name: "push", reason: "upstream-reset", says: func(c *evil2Conn, id uint32) {
			_ = c.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: []byte{0x82}, EndHeaders: true})
		}},
		{name: "frame that is too large", reason: "upstream-reset", says: func(c *evil2Conn, id uint32) { _ = c.WriteRawFrame(http2.FrameData, 0, id, make([]byte, 20_000)) }},
		{name: "broken compression", reason: "upstream-reset", says: func(c *evil2Conn, id uint32) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0xff, 0xff, 0xff}, EndHeaders: true, EndStream: true})
		}},
		{name: "bytes that are no frames", reason: "upstream-reset", says: func(c *evil2Conn, _ uint32) {
			_, _ = io.WriteString(c.nc, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}},
		{name: "window of 0", says: func(c *evil2Conn, id uint32) {
			_ = c.WriteWindowUpdate(id, 0)
			_ = c.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4))
		}},
	}
}

func TestEvilAnswersOfHTTP2(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	addr := w.named("inventory", 8080)
	for version, client := range map[string]*http.Client{"HTTP/1.1": w.client(), "HTTP/2": h2c(t)} {
		for _, a := range evil2Answers() {
			t.Run(a.name+" to "+version, func(t *testing.T) {
				w := &world{t: t, p: w.p}
				says := a.says
				if says == nil {
					says = func(c *evil2Conn, id uint32) { c.head(id, true, a.head...) }
				}
				w.evil2(says)
				method := "POST"
				if a.method != "" {
					method = a.method
				}
				a.check(t, client, method, "http://"+addr)
				res, body, err := ask(client, "POST", "http://"+addr)
				if err != nil || res.StatusCode != 200 || body != "next" {
					t.Errorf("the next request: %v, %v, %q", err, res, body)
				}
			})
		}
	}
}

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (a *evil2Answer) check(t *testing.T, client *http.Client, method, url string) {
	t.Helper()
	res, body, err := ask(client, method, url)
	refused := err == nil && res.StatusCode == 502 && res.Header.Get("Shoal-Reason") == nonEmpty(a.reason, "upstream-malformed")
	said := fmt.Sprint(err)
	if err == nil {
		said = fmt.Sprint(res.Status, res.Header, body)
	}
	switch {
	case strings.Contains(body, "evil"):
		t.Error("what is no answer passed: ", said)
	case a.passes != "":
		if err != nil || body != a.passes {
			t.Error(said)
		}
	case a.begins:
		if !refused && err == nil && body != "" {
			t.Error("passed for whole: ", said)
		}
	case !refused:
		t.Error(said)
	}
}
