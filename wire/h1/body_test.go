package h1_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/wire/h1"
)

func chunkedBody(t *testing.T) h1.Body {
	t.Helper()
	r, _, err := parseRequest(t, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	return r.Body()
}

const chunks = "5\r\nhello\r\n1;x=\"y\"\r\n \r\n00a\r\n0123456789\r\n0;last\r\nX-Sum: 1\r\nY:\r\n\r\n"

// However the bytes arrive, the body has the same end and the same content.
func TestChunkedInPieces(t *testing.T) {
	text := chunks + "GET /next"
	for piece := 1; piece <= len(text); piece++ {
		b, content, taken := chunkedBody(t), "", 0
		for rest := text; rest != "" && !b.Done(); {
			p := []byte(rest[:min(piece, len(rest))])
			c, n, err := b.Next(p)
			if err != nil {
				t.Fatalf("pieces of %d: %v after %d bytes", piece, err, taken)
			}
			content, taken, rest = content+string(c), taken+n, rest[n:]
		}
		if !b.Done() || taken != len(chunks) || content != "hello 0123456789" {
			t.Fatalf("pieces of %d: took %d of %d, content %q", piece, taken, len(chunks), content)
		}
	}
}

func TestChunkedRejected(t *testing.T) {
	for text, says := range map[string]string{
		"x\r\n":                                  "without a size",
		"\r\n":                                   "without a size",
		" 5\r\n":                                 "without a size",
		"5\nhello":                               "invalid character",
		"5\rxhello":                              "bare CR",
		"5;a\nhello":                             "control character",
		"5\r\nhelloX\r\n":                        "does not end",
		"5\r\nhello\n":                           "does not end",
		"-5\r\n":                                 "without a size",
		"0x5\r\n":                                "invalid character",
		"fffffffffffffffff\r\n":                  "digits",
		"5;" + strings.Repeat("a", 300) + "\r\n": "256",
		"0\r\nContent-Length: 5\r\n\r\n":         "content-length",
		"0\r\nShoal-Caller: root\r\n\r\n":        "shoal-caller",
		"0\r\n folded\r\n\r\n":                   "invalid trailer",
		"0\r\nA b: c\r\n\r\n":                    "invalid trailer",
		"0\r\nA: b\nc":                           "control character",
		"0\r\n\rX":                               "bare CR",
		"0\r\nA: " + strings.Repeat("a", 9000):   "8192",
	} {
		b := chunkedBody(t)
		b.Guard = "shoal-"
		_, err := b.Take([]byte(text))
		var e *h1.Error
		if !errors.As(err, &e) || !strings.Contains(e.Text, says) {
			t.Errorf("%.40q: %v, want %q", text, err, says)
		}
	}
}

func TestAppendChunk(t *testing.T) {
	wire := h1.AppendChunk(nil, []byte("hello"))
	wire = append(h1.AppendChunk(wire, nil), h1.LastChunk...)
	b := chunkedBody(t)
	if n, err := b.Take(wire); n != len(wire) || err != nil || !b.Done() {
		t.Errorf("%q: took %d, %v, done %v", wire, n, err, b.Done())
	}
}

func TestResponseFraming(t *testing.T) {
	const line = "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		head string
		on   bool // HEAD
		rest string
		take int
		done bool
	}{
		{line + "Content-Length: 3\r\n\r\n", false, "abcdef", 3, true},
		{line + "Content-Length: 3\r\n\r\n", true, "abcdef", 0, true},
		{line + "\r\n", false, "abcdef", 6, false},
		{line + "Transfer-Encoding: chunked\r\n\r\n", false, "1\r\na\r\n0\r\n\r\nHTTP", 11, true},
		{line + "Transfer-Encoding: chunked\r\n\r\n", true, "HTTP", 0, true},
		{"HTTP/1.1 204\r\nContent-Length: 3\r\n\r\n", false, "HTTP", 0, true},
		{"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", false, "HTTP", 0, true},
		{"HTTP/1.1 100 Continue\r\n\r\n", false, "HTTP", 0, true},
	} {
		b := []byte(c.head)
		n, err := h1.End(b, 0, h1.Limits{})
		var r h1.Response
		if err == nil {
			err = r.Parse(b[:n], h1.Limits{})
		}
		if err != nil {
			t.Errorf("%q: %v", c.head, err)
			continue
		}
		body := r.Body(c.on)
		took, err := body.Take([]byte(c.rest))
		if took != c.take || body.Done() != c.done || err != nil {
			t.Errorf("%q: took %d, done %v, %v; want %d, %v", c.head, took, body.Done(), err, c.take, c.done)
		}
	}
}

func TestResponseRejected(t *testing.T) {
	for _, text := range []string{
		"HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 0200\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 099 X\r\n\r\n",
		"ICY 200 OK\r\n\r\n", "HTTP/1.1 200 O\x00K\r\n\r\n", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1\r\n\r\n",
	} {
		var r h1.Response
		if err := r.Parse([]byte(text), h1.Limits{}); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}
