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
		if err == nil && n == 0 {
			return
		}
		var r h1.Request
		if err == nil {
			err = r.Parse(b[:n], h1.Limits{})
		}
		switch {
		case err != nil:
			stricter(t, b, err)
		case ordinary(&r, b):
			compare(t, &r, b, n)
		}
	})
}

// strictness is where this codec rejects what net/http accepts, with the reason for it.
var strictness = map[string]string{
	"bare LF":                 "RFC 9112 section 2.2 lets a server accept it, and intermediaries disagree",
	"obs-fold":                "RFC 9112 section 5.2: a server may reject it",
	"control character":       "net/http lets some control characters pass within values",
	"Content-Length":          "net/http joins equal ones, and takes a sign or more digits",
	"Transfer-Encoding":       "net/http lets Transfer-Encoding override a length, and ignores it in HTTP/1.0",
	"Host field":              "net/http leaves a missing or second Host to its server",
	"invalid host":            "RFC 3986 section 3.2.2, without userinfo; net/http leaves it to its server",
	"request target":          "paths alone and http URLs are for a proxy; net/http takes any URL",
	"HOST:PORT":               "RFC 9112 section 3.2.3",
	"CONNECT with a body":     "RFC 9110 section 9.3.6",
	"Connection field":        "it would take away a field that frames or routes",
	"method":                  "net/http has no limit",
	"version":                 "HTTP/2.0 is said by its preface, not in words",
	"first line of another":   "the version is malformed in both; net/http looks at it first",
	"its limit":               "limits are ours to choose",
	"character in a field's":  "net/http takes a name with a space in it and keeps it as it is",
	"white space between":     "RFC 9112 section 5.1 asks for it",
	"field line without":      "net/http skips what has no name",
	"field without a name":    "the same",
	"goes on after the":       "net/http looks at the version as text",
	"a first line without an": "the same",
}

// stricter wants a reason for every message that net/http accepts and this codec does not.
func stricter(t *testing.T, b []byte, err error) {
	if _, std := http.ReadRequest(bufio.NewReader(bytes.NewReader(b))); std != nil {
		return
	}
	for part := range strictness {
		if strings.Contains(err.Error(), part) {
			return
		}
	}
	t.Fatalf("net/http accepts %q, and this codec says %v", b, err)
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
	body := r.Body()
	content, at, bad := readBody(&body, b, n)
	want, err := io.ReadAll(std.Body)
	rest, _ := io.ReadAll(in)
	switch {
	case bad != nil || !body.Done():
	case err != nil && !bytes.ContainsAny(b[n:at], ":;"):
		t.Fatalf("%q: body %q; net/http says %v", b, content, err) // but it has other rules for extensions and trailers
	case err == nil && (!bytes.Equal(content, want) || !bytes.Equal(b[at:], rest)):
		t.Fatalf("%q: body %q, rest %q; net/http %q, %q", b, content, b[at:], want, rest)
	}
}

// What this codec accepts of an instance's answer net/http must read in the same way; and nothing may panic or
// run over a buffer.
func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"), false)
	f.Add([]byte("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x00"), false)
	f.Add([]byte("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n"+chunks), false)
	f.Add([]byte("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"), false)
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/"), true)
	f.Add([]byte("HTTP/1.0 200 OK\r\n\r\nto the end"), false)
	f.Fuzz(func(t *testing.T, b []byte, head bool) {
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
		compareResponse(t, &r, b, n, head)
	})
}

func compareResponse(t *testing.T, r *h1.Response, b []byte, n int, head bool) {
	method := "GET"
	if head {
		method = "HEAD"
	}
	in := bufio.NewReader(bytes.NewReader(b))
	std, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("net/http rejects %q: %v", b, err)
	}
	if std.StatusCode != r.Status {
		t.Fatalf("%q: status %d against %d", b, r.Status, std.StatusCode)
	}
	body := r.Body(head)
	content, at, bad := readBody(&body, b, n)
	want, err := io.ReadAll(std.Body)
	rest, _ := io.ReadAll(in)
	switch {
	case bad != nil || err != nil || !body.Done() && !body.ToEnd():
	case !bytes.Equal(content, want) || !bytes.Equal(b[at:], rest):
		t.Fatalf("%q: body %q, rest %q; net/http %q, %q", b, content, b[at:], want, rest)
	}
}

// readBody returns the content of the body that begins at a place of b, and where it ends.
func readBody(body *h1.Body, b []byte, at int) (content []byte, end int, err error) {
	for at < len(b) && !body.Done() {
		c, m, err := body.Next(b[at:])
		at += m
		if err != nil {
			return nil, at, err
		}
		content = append(content, c...)
	}
	return content, at, nil
}
