package h1_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/wire/h1"
)

// What this codec accepts, net/http must accept too and read the same way: the same method, host,
// fields, framing and body. (The other way does not hold: this codec is stricter.)
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n",
		"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
		"GET http://h:1/p HTTP/1.1\r\nHost: x\r\nConnection: close, A\r\nA: b\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: \r\nTE: trailers\r\n\r\n",
		"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := h1.End(b, 0, h1.Limits{})
		if err != nil || n == 0 {
			return
		}
		var r h1.Request
		if r.Parse(b[:n], h1.Limits{}) != nil || !ordinary(&r, b) {
			return
		}
		compare(t, &r, b, n)
	})
}

// ordinary leaves out what net/url rejects for reasons of its own, where nothing hangs on it: bad
// percent-encoding, unusual hosts and paths. Methods are those that a proxy sees.
func ordinary(r *h1.Request, b []byte) bool {
	return !bytes.ContainsAny(r.Target.Of(b), "%[]:@") && !bytes.ContainsAny(r.Host.Of(b), "%[]:!$&'()*+;=~") &&
		r.Form == h1.Origin && !strings.HasPrefix(string(r.Target.Of(b)), "//")
}

func compare(t *testing.T, r *h1.Request, b []byte, n int) {
	in := bufio.NewReader(bytes.NewReader(b))
	std, err := http.ReadRequest(in)
	if err != nil {
		t.Fatalf("net/http rejects %q: %v", b, err)
	}
	if std.Method != string(r.Method.Of(b)) || std.Host != string(r.Host.Of(b)) || std.RequestURI != string(r.Target.Of(b)) {
		t.Fatalf("%q: %s %s %s against net/http's %s %s %s", b,
			r.Method.Of(b), r.Target.Of(b), r.Host.Of(b), std.Method, std.RequestURI, std.Host)
	}
	if std.Close != r.Close || len(std.TransferEncoding) == 1 != r.Chunked {
		t.Fatalf("%q: close %v, chunked %v against %v, %v", b, r.Close, r.Chunked, std.Close, std.TransferEncoding)
	}
	if !r.Chunked && std.ContentLength != max(r.Length, 0) {
		t.Fatalf("%q: length %d against %d", b, r.Length, std.ContentLength)
	}
	compareBody(t, r, b, n, std, in)
}

func compareBody(t *testing.T, r *h1.Request, b []byte, n int, std *http.Request, in *bufio.Reader) {
	body, content := r.Body(), []byte(nil)
	for at := n; at < len(b) && !body.Done(); {
		c, m, err := body.Next(b[at:])
		if err != nil {
			return
		}
		content, at, n = append(content, c...), at+m, at+m
	}
	if !body.Done() {
		return
	}
	want, err := io.ReadAll(std.Body)
	if err != nil {
		return // net/http is stricter with trailers and extensions
	}
	rest, _ := io.ReadAll(in)
	if !bytes.Equal(content, want) || !bytes.Equal(b[n:], rest) {
		t.Fatalf("%q: body %q, rest %q; net/http %q, %q", b, content, b[n:], want, rest)
	}
}

// Nothing that comes from an instance may panic or run over a buffer.
func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"))
	f.Add([]byte("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x00"))
	f.Add([]byte("HTTP/1.0 200\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := h1.End(b, 0, h1.Limits{})
		if err != nil || n == 0 {
			return
		}
		var r h1.Response
		if r.Parse(b[:n], h1.Limits{}) != nil {
			return
		}
		if got := r.AppendFields(nil, b); len(got) > n {
			t.Fatalf("%q: forwards %q", b, got)
		}
		body := r.Body(false)
		if took, _ := body.Take(b[n:]); took > len(b)-n {
			t.Fatalf("%q: took %d", b, took)
		}
	})
}
