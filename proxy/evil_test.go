package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shoalrun/shoal/proxy"
)

// evil is an application that answers its first request with whatever a test says, and every other one with
// `next`, on whichever connection it comes. It closes none by itself.
type evil struct {
	addr    string
	says    string
	ends    bool // the first answer ends with its connection
	taken   atomic.Bool
	reached chan net.Conn // that carried the first request
}

func (w *world) evil(says string, ends bool) *evil {
	l := w.listen()
	w.t.Cleanup(func() { l.Close() })
	e := &evil{addr: l.Addr().String(), says: says, ends: ends, reached: make(chan net.Conn, 1)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.t.Cleanup(func() { c.Close() })
			go e.serve(c)
		}
	}()
	w.p.Attach("inventory-1", dialTo(e.addr))
	return e
}

func (e *evil) serve(c net.Conn) {
	in := bufio.NewReader(c)
	if first, err := in.Peek(3); err == nil && string(first) == "PRI" {
		_, _ = io.WriteString(c, "HTTP/1.1 505 No\r\nConnection: close\r\n\r\n")
		c.Close()
		return
	}
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if !e.taken.Swap(true) {
			_, _ = io.WriteString(c, e.says)
			e.reached <- c
			if e.ends {
				c.Close()
			}
			continue
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
	}
}

// evilAnswer is what an application says in HTTP/1.1, and what its caller is told for it.
type evilAnswer struct {
	name, says string
	method     string // POST where it is empty
	ends       bool
	status     int    // 0: the answer begins and breaks off
	body       string // of what passes
	lacks      string // a field that does not pass
}

const okHead = "HTTP/1.1 200 OK\r\n"

func chunkedAnswer(body string) string { return okHead + "Transfer-Encoding: chunked\r\n\r\n" + body }

// evilAnswers: a message that two readers could take for two different ones is refused, or passed on in one form.
var evilAnswers = []evilAnswer{
	// Lines.
	{name: "bare LF", says: "HTTP/1.1 200 OK\nContent-Length: 0\n\n", status: 502},
	{name: "bare LF in the fields", says: okHead + "A: b\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "bare LF at the end", says: okHead + "Content-Length: 0\r\n\n", status: 502},
	{name: "bare CR in a value", says: okHead + "A: b\rC: d\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "obs-fold", says: okHead + "A: b\r\n c\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "folded length", says: okHead + "Content-Length:\r\n 5\r\n\r\nhello", status: 502},
	{name: "space before the colon", says: okHead + "Content-Length : 5\r\n\r\nhello", status: 502},
	{name: "no colon", says: okHead + "nonsense\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "no name", says: okHead + ": x\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "NUL in a value", says: okHead + "A: b\x00c\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "NUL in a name", says: okHead + "A\x00: b\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "control character in a value", says: okHead + "A: b\x07\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "bracket in a name", says: okHead + "A[]: b\r\nContent-Length: 0\r\n\r\n", status: 502},
	// Status lines.
	{name: "nonsense", says: "nonsense\r\n\r\n", status: 502},
	{name: "another protocol", says: "ICY 200 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "lower case", says: "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "HTTP/2.0 in words", says: "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "HTTP/1.11", says: "HTTP/1.11 200 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "status of two digits", says: "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "status of four digits", says: "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "status 099", says: "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "status in letters", says: "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "negative status", says: "HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "two spaces", says: "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "tab for a space", says: "HTTP/1.1\t200 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "control character in the phrase", says: "HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "no phrase", says: "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok"},
	// Framing.
	{name: "two lengths", says: okHead + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", status: 502},
	{name: "two lengths, equal", says: okHead + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", status: 502},
	{name: "list of lengths", says: okHead + "Content-Length: 5, 5\r\n\r\nhello", status: 502},
	{name: "length, plus", says: okHead + "Content-Length: +5\r\n\r\nhello", status: 502},
	{name: "length, minus", says: okHead + "Content-Length: -5\r\n\r\nhello", status: 502},
	{name: "length, hexadecimal", says: okHead + "Content-Length: 0x5\r\n\r\nhello", status: 502},
	{name: "length, empty", says: okHead + "Content-Length:\r\n\r\nhello", status: 502},
	{name: "length, too many digits", says: okHead + "Content-Length: 99999999999999999999\r\n\r\nhello", status: 502},
	{name: "length and chunks", says: okHead + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 502},
	{name: "chunks and length", says: okHead + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", status: 502},
	{name: "another coding", says: okHead + "Transfer-Encoding: gzip\r\n\r\nhello", status: 502},
	{name: "gzip, chunked", says: okHead + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", status: 502},
	{name: "chunked twice", says: okHead + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", status: 502},
	{name: "two codings", says: okHead + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 502},
	{name: "xchunked", says: okHead + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", status: 502},
	{name: "chunks in HTTP/1.0", says: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 502},
	{name: "chunk without a size", says: chunkedAnswer("\r\nhello\r\n0\r\n\r\n"), status: 502},
	{name: "chunk with a sign", says: chunkedAnswer("-5\r\nhello\r\n0\r\n\r\n"), status: 502},
	{name: "chunk with 0x", says: chunkedAnswer("0x5\r\nhello\r\n0\r\n\r\n"), status: 502},
	{name: "chunk with too many digits", says: chunkedAnswer("00000000000000005\r\nhello\r\n0\r\n\r\n"), status: 502},
	{name: "chunk that is too long", says: chunkedAnswer("5\r\nhello!\r\n0\r\n\r\n"), status: 502},
	{name: "bare LF behind a size", says: chunkedAnswer("5\nhello\r\n0\r\n\r\n"), status: 502},
	{name: "control character in an extension", says: chunkedAnswer("5;a=\x00\r\nhello\r\n0\r\n\r\n"), status: 502},
	{name: "forged trailer", says: chunkedAnswer("0\r\nContent-Length: 5\r\n\r\n"), status: 502},
	{name: "length over the body", says: okHead + "Content-Length: 9\r\n\r\nhello", ends: true, status: 0},
	{name: "chunks without an end", says: chunkedAnswer("5\r\nhello\r\n"), ends: true, status: 0},
	{name: "an end within the head", says: okHead + "Content-Le", ends: true, status: 502},
	{name: "no answer", says: "", ends: true, status: 502},
	// What no body may follow (RFC 9112 section 6.3), and what comes behind an answer.
	{name: "body on 204", says: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", status: 204, lacks: "Content-Length"},
	{name: "chunks on 204", says: "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", status: 204, lacks: "Transfer-Encoding"},
	{name: "body on 304", says: "HTTP/1.1 304 Not Modified\r\n\r\nhello", status: 304},
	{name: "body on HEAD", says: okHead + "Content-Length: 5\r\n\r\nhello", method: "HEAD", status: 200},
	{name: "answer on HEAD's answer", says: okHead + "Content-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", method: "HEAD", status: 200},
	{name: "bytes behind the body", says: okHead + "Content-Length: 2\r\n\r\nokevil", status: 200, body: "ok"},
	{name: "bytes behind the last chunk", says: chunkedAnswer("2\r\nok\r\n0\r\n\r\nevil"), status: 200, body: "ok"},
	{name: "a second answer", says: okHead + "Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", status: 200, body: "ok"},
	{name: "no length", says: okHead + "\r\nto the end", ends: true, status: 200, body: "to the end"},
	{name: "HTTP/1.0 without a length", says: "HTTP/1.0 200 OK\r\n\r\nto the end", ends: true, status: 200, body: "to the end"},
	// Interim answers and upgrades.
	{name: "length on 103", says: "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + okHead + "Content-Length: 2\r\n\r\nok", status: 502},
	{name: "interim and final", says: "HTTP/1.1 102 Processing\r\n\r\n" + okHead + "Content-Length: 2\r\n\r\nok", status: 200, body: "ok"},
	{name: "flood of 102", says: strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1000), status: 502},
	{name: "upgrade that nobody asked for", says: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", status: 502},
	// Fields of the connection, and Shoal's own.
	{name: "Connection names a field", says: okHead + "Connection: X-Secret\r\nX-Secret: a\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok", lacks: "X-Secret"},
	{name: "Connection names the length", says: okHead + "Connection: Content-Length\r\nContent-Length: 2\r\n\r\nok", status: 502},
	{name: "Keep-Alive", says: okHead + "Keep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok", lacks: "Keep-Alive"},
	{name: "Proxy-Connection", says: okHead + "Proxy-Connection: keep-alive\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok", lacks: "Proxy-Connection"},
	{name: "forged refusal", says: okHead + "Shoal-Reason: not-allowed\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok", lacks: "Shoal-Reason"},
	{name: "head over its limit", says: okHead + "A: " + strings.Repeat("b", 70_000) + "\r\n\r\n", status: 502},
	{name: "too many fields", says: okHead + strings.Repeat("A: b\r\n", 300) + "Content-Length: 0\r\n\r\n", status: 502},
}

// Whatever an application says, its caller gets one message or a refusal, and the next request gets the answer
// that is meant for it.
func TestEvilAnswers(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	addr := w.named("inventory", 8080)
	for version, client := range map[string]*http.Client{"HTTP/1.1": w.client(), "HTTP/2": h2c(t)} {
		for _, a := range evilAnswers {
			t.Run(a.name+" to "+version, func(t *testing.T) {
				w := &world{t: t, p: w.p}
				w.evil(a.says, a.ends)
				method := a.method
				if method == "" {
					method = "POST"
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

func ask(client *http.Client, method, url string) (*http.Response, string, error) {
	res, err := client.Do(must(http.NewRequest(method, url, strings.NewReader(""))))
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

func (a *evilAnswer) check(t *testing.T, client *http.Client, method, url string) {
	t.Helper()
	res, body, err := ask(client, method, url)
	if a.status == 0 {
		if err == nil {
			t.Errorf("an answer that broke off passed for %d %q", res.StatusCode, body)
		}
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	reason := res.Header.Get("Shoal-Reason")
	refused := reason == "upstream-malformed" || reason == "upstream-reset"
	if res.StatusCode != a.status || refused != (a.status == 502) || !refused && body != a.body {
		t.Errorf("%s, reason %q, %q", res.Status, reason, body)
	}
	if refused && (res.Header.Get("X-Request-Id") == "" || !strings.Contains(body, "inventory")) {
		t.Errorf("the refusal says %v %q", res.Header, body)
	}
	if a.lacks != "" && res.Header.Get(a.lacks) != "" {
		t.Errorf("%s passed: %v", a.lacks, res.Header)
	}
}

// What comes on an idle connection answers nobody: the next request gets its own answer, or none.
func TestUnaskedAnswers(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	addr := w.named("inventory", 8080)
	for version, client := range map[string]*http.Client{"HTTP/1.1": w.client(), "HTTP/2": h2c(t)} {
		for name, body := range map[string]io.Reader{"whole": strings.NewReader("abc"), "streamed": io.MultiReader(strings.NewReader("abc"))} {
			for _, method := range []string{"GET", "POST", "PUT"} {
				t.Run(fmt.Sprintf("%s, %s %s", version, method, name), func(t *testing.T) {
					w := &world{t: t, p: w.p}
					e := w.evil(okHead+"Content-Length: 2\r\n\r\nok", false)
					if _, got, err := ask(client, "POST", "http://"+addr); err != nil || got != "ok" {
						t.Fatal(got, err)
					}
					c := (<-e.reached).(*net.TCPConn)
					_, _ = io.WriteString(c, okHead+"Content-Length: 4\r\n\r\nevil")
					arrived(t, c)
					r := must(http.NewRequest(method, "http://"+addr, body))
					if method == "GET" {
						r.Body, r.ContentLength = nil, 0
					}
					res, err := client.Do(r)
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					got, _ := io.ReadAll(res.Body)
					switch {
					case res.StatusCode == 200 && string(got) == "next":
					case res.StatusCode == 502 && method == "POST":
						contains(t, string(got), "nobody had asked for")
					default:
						t.Errorf("%s %q", res.Status, got)
					}
				})
			}
		}
	}
}
