package conformance

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// ambiguous2 is an HTTP/2 request that would be another one in HTTP/1.1, or to another server.
type ambiguous2 struct {
	name     string
	fields   []string // names and values, in this order
	body     string
	trailers []string
	status   string // of the answer; empty: the stream is reset with PROTOCOL_ERROR
	seen     string // what an application that speaks HTTP/1.1 saw; empty: nothing
}

// get is what a request begins with.
func get(more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "target"}, more...)
}

// with is get with one pseudo-header field changed; without a value it is left out.
func with(name, value string, more ...string) []string {
	var fields []string
	for f := get(); len(f) > 0; f = f[2:] {
		switch {
		case f[0] != name:
			fields = append(fields, f[0], f[1])
		case value != "":
			fields = append(fields, name, value)
		}
	}
	return append(fields, more...)
}

const seenGet = "GET / HTTP/1.1\r\nHost: target\r\n"

// ambiguous2s are requests by HTTP/2. Where the body matters it is sent in a DATA frame of its own.
var ambiguous2s = []ambiguous2{
	// What would end a line, or a part of one, in HTTP/1.1 (RFC 9113 section 8.2.1).
	{name: "CR LF in a value", fields: get("x", "a\r\nTransfer-Encoding: chunked")},
	{name: "LF in a value", fields: get("x", "a\ny: b")},
	{name: "CR in a value", fields: get("x", "a\ry: b")},
	{name: "NUL in a value", fields: get("x", "a\x00b")},
	{name: "control character in a value", fields: get("x", "a\x01b")},
	{name: "space at a value's end", fields: get("x", "a ")},
	{name: "CR LF in a name", fields: get("x\r\ny", "a")},
	{name: "colon in a name", fields: get("x:y", "a")},
	{name: "space in a name", fields: get("x y", "a")},
	{name: "space at a name's end", fields: get("content-length ", "1")},
	{name: "NUL in a name", fields: get("x\x00", "a")},
	{name: "upper case", fields: get("X", "a")},
	{name: "no name", fields: get("", "a")},
	{name: "other letters in a name", fields: get("x\u00e9", "a")},
	{name: "CR LF in the path", fields: with(":path", "/ HTTP/1.1\r\nHost: other\r\nX: ")},
	{name: "space in the path", fields: with(":path", "/a b")},
	{name: "NUL in the path", fields: with(":path", "/\x00")},
	{name: "fragment in the path", fields: with(":path", "/#a")},
	{name: "path without a slash", fields: with(":path", "a")},
	{name: "path is a URL", fields: with(":path", "http://other/")},
	{name: "empty path", fields: append(with(":path", ""), ":path", "")},
	{name: "asterisk", fields: with(":path", "*")},
	{name: "CR LF in the method", fields: with(":method", "GET / HTTP/1.1\r\nHost: other\r\n\r\nGET")},
	{name: "space in the method", fields: with(":method", "GET /a")},
	{name: "empty method", fields: append(with(":method", ""), ":method", "")},
	{name: "CR LF in the authority", fields: with(":authority", "target\r\nX: y")},
	{name: "user in the authority", fields: with(":authority", "a@target")},
	{name: "path in the authority", fields: with(":authority", "target/a")},
	{name: "list in the authority", fields: with(":authority", "target,other")},
	{name: "URL in the scheme", fields: with(":scheme", "http://other/a?")},
	{name: "CR LF in the scheme", fields: with(":scheme", "http\r\nX: y")},
	// Pseudo-header fields (section 8.3).
	{name: "no method", fields: with(":method", "")},
	{name: "no scheme", fields: with(":scheme", "")},
	{name: "no path", fields: with(":path", "")},
	{name: "two methods", fields: get(":method", "POST")},
	{name: "two paths", fields: get(":path", "/b")},
	{name: "two authorities", fields: get(":authority", "other")},
	{name: "two schemes", fields: get(":scheme", "https")},
	{name: "pseudo behind a field", fields: append([]string{"x", "y"}, get()...)},
	{name: "unknown pseudo", fields: get(":what", "a")},
	{name: "status in a request", fields: get(":status", "200")},
	{name: "protocol without CONNECT", fields: get(":protocol", "websocket")},
	{name: "CONNECT with a path", fields: with(":method", "CONNECT")},
	{name: "CONNECT without an authority", fields: []string{":method", "CONNECT"}},
	// Hosts (section 8.3.1).
	{name: "host is not the authority", fields: get("host", "other")},
	{name: "two hosts", fields: with(":authority", "", "host", "target", "host", "other")},
	{name: "invalid host", fields: with(":authority", "", "host", "a@b")},
	{name: "host is the authority", fields: get("host", "target"), status: "200", seen: seenGet + "\r\n"},
	{name: "host for the authority", fields: with(":authority", "", "host", "target"), status: "200", seen: seenGet + "\r\n"},
	// Fields of the connection (section 8.2.2).
	{name: "connection", fields: get("connection", "close")},
	{name: "proxy-connection", fields: get("proxy-connection", "close")},
	{name: "keep-alive", fields: get("keep-alive", "timeout=1")},
	{name: "transfer-encoding", fields: get("transfer-encoding", "chunked"), body: "0\r\n\r\nGET /b HTTP/1.1\r\n\r\n"},
	{name: "transfer-encoding, identity", fields: get("transfer-encoding", "identity")},
	{name: "upgrade", fields: get("upgrade", "h2c")},
	{name: "te: gzip", fields: get("te", "gzip")},
	{name: "te: trailers", fields: get("te", "trailers"), status: "200", seen: seenGet + "\r\n"},
	// Lengths (section 8.1.1).
	{name: "length over the body", fields: get("content-length", "5"), body: "abc"},
	{name: "length under the body", fields: get("content-length", "1"), body: "abc"},
	{name: "length and no body", fields: get("content-length", "5")},
	{name: "two lengths", fields: get("content-length", "3", "content-length", "4"), body: "abc"},
	{name: "two lengths, equal", fields: get("content-length", "3", "content-length", "3"), body: "abc"},
	{name: "length, plus", fields: get("content-length", "+3"), body: "abc"},
	{name: "length, hexadecimal", fields: get("content-length", "0x3"), body: "abc"},
	{name: "length, list", fields: get("content-length", "3, 3"), body: "abc"},
	{name: "length, over 64 bits", fields: get("content-length", "18446744073709551619"), body: "abc"},
	{name: "length", fields: get("content-length", "3"), body: "abc", status: "200", seen: seenGet + "content-length: 3\r\n\r\nabc"},
	{name: "no length", fields: get(), body: "GET /b HTTP/1.1\r\n\r\n", status: "200",
		seen: seenGet + "Transfer-Encoding: chunked\r\n\r\n13\r\nGET /b HTTP/1.1\r\n\r\n\r\n0\r\n\r\n"},
	// Trailers.
	{name: "trailer", fields: get(), body: "abc", trailers: []string{"x-sum", "1"}, status: "200",
		seen: seenGet + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"},
	{name: "trailer, pseudo", fields: get(), body: "abc", trailers: []string{":path", "/b"}},
	{name: "trailer, content-length", fields: get(), body: "abc", trailers: []string{"content-length", "3"}},
	{name: "trailer, transfer-encoding", fields: get(), body: "abc", trailers: []string{"transfer-encoding", "chunked"}},
	{name: "trailer, host", fields: get(), body: "abc", trailers: []string{"host", "other"}},
	{name: "trailer, authorization", fields: get(), body: "abc", trailers: []string{"authorization", "a"}},
	{name: "trailer, identity", fields: get(), body: "abc", trailers: []string{"shoal-caller", "operator"}},
	{name: "trailer, CR LF", fields: get(), body: "abc", trailers: []string{"x", "a\r\n\r\nGET /b HTTP/1.1"}},
	// Identity.
	{name: "forged identity", fields: get("shoal-caller", "operator", "shoal-peer-source", "operator/1"), status: "200", seen: seenGet + "\r\n"},
	{name: "cookies in pieces", fields: get("cookie", "a=b", "cookie", "c=d"), status: "200", seen: seenGet + "cookie: a=b; c=d\r\n\r\n"},
}

func TestAmbiguousHTTP2Requests(t *testing.T) {
	overPaths(t, ok, func(t *testing.T, _, addr string, r *recorder) {
		for _, a := range ambiguous2s {
			t.Run(a.name, func(t *testing.T) {
				before := len(r.saw())
				a.check(t, addr)
				if a.seen == "" {
					settled(t, addr) // had it gone on, it would have come before this
				}
				saw := strings.TrimSuffix(r.saw()[before:], settle)
				// Where nothing is refused at the head, what came of a body may have gone on: a message that ends early.
				if a.seen == "" && len(a.trailers)+len(a.body) > 0 && !strings.Contains(saw, "0\r\n\r\n") && !strings.HasSuffix(saw, "\r\nabc") {
					return
				}
				if !alike(saw, a.seen) {
					t.Errorf("the application saw\n%s\nwant\n%s", indent(quote(saw)), indent(quote(a.seen)))
				}
			})
		}
	})
}

// Towards an application that speaks HTTP/2 the same is refused.
func TestAmbiguousHTTP2RequestsToHTTP2(t *testing.T) {
	var served atomic.Int64
	l := listen(t)
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			served.Add(1)
		}
	})}
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	for _, p := range manyPaths() {
		t.Run(p.name, func(t *testing.T) {
			addr := p.open(t, application{l.Addr().String(), fleet.HTTP})
			for _, a := range ambiguous2s {
				t.Run(a.name, func(t *testing.T) {
					before := served.Load()
					a.check(t, addr)
					if a.seen == "" {
						settled(t, addr)
						before++
					}
					if n := served.Load() - before; a.seen == "" && n != 0 || a.seen != "" && n != 1 {
						t.Errorf("the application served %d whole requests", n)
					}
				})
			}
		})
	}
}

const settle = "GET /settle HTTP/1.1\r\nHost: target\r\n\r\n"

// settled makes a request that nobody could mistake.
func settled(t *testing.T, addr string) {
	t.Helper()
	p := connect2(t, addr)
	if status, code := p.answer(p.send(with(":path", "/settle"), "", nil)); status != "200" {
		t.Fatalf("an ordinary request: %s %v", status, code)
	}
}

func (a *ambiguous2) check(t *testing.T, addr string) {
	t.Helper()
	p := connect2(t, addr)
	status, code := p.answer(p.send(a.fields, a.body, a.trailers))
	if status != a.status || a.status == "" && code != http2.ErrCodeProtocol {
		t.Errorf("answered %q, reset with %v; want %q", status, code, a.status)
	}
}

// caller2 is an HTTP/2 client that sends what it likes.
type caller2 struct {
	*http2.Framer
	t    *testing.T
	enc  *hpack.Encoder
	buf  bytes.Buffer
	next uint32
}

func connect2(t *testing.T, addr string) *caller2 {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	c := &caller2{Framer: http2.NewFramer(nc, nc), t: t, next: 1}
	c.enc = hpack.NewEncoder(&c.buf)
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, _ = io.WriteString(nc, http2.ClientPreface)
	_ = c.WriteSettings()
	return c
}

func (c *caller2) block(fields []string) []byte {
	c.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(c.buf.Bytes())
}

// send sends a request, whatever it is. What fails, the answer tells.
func (c *caller2) send(fields []string, body string, trailers []string) uint32 {
	id := c.next
	c.next += 2
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block(fields), EndStream: body == "" && trailers == nil, EndHeaders: true})
	if body != "" {
		_ = c.WriteData(id, trailers == nil, []byte(body))
	}
	if trailers != nil {
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block(trailers), EndStream: true, EndHeaders: true})
	}
	return id
}

// answer reads the stream's status, or how it, or the connection, was ended.
func (c *caller2) answer(id uint32) (status string, code http2.ErrCode) {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			c.t.Fatal("no answer: ", err)
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			return fmt.Sprintf("GOAWAY %s", f.DebugData()), f.ErrCode
		case *http2.MetaHeadersFrame:
			if f.StreamID == id {
				return f.PseudoValue("status"), 0
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return "", f.ErrCode
			}
		}
	}
}
