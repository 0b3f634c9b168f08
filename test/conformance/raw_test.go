package conformance

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorder is an application that keeps every byte that it was sent.
type recorder struct {
	addr   string
	answer string // in full, to each request

	mu   sync.Mutex // guards seen
	seen bytes.Buffer
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// record starts a recorder.
func record(t testing.TB, answer string) *recorder {
	l := listen(t)
	r := &recorder{addr: l.Addr().String(), answer: answer}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(c)
		}
	}()
	return r
}

// serve answers what net/http takes for requests: whether it is right, the bytes tell.
func (r *recorder) serve(c net.Conn) {
	defer c.Close()
	first := make([]byte, 2)
	_, _ = io.ReadFull(c, first)
	if string(first) == "PR" {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
		return // HTTP/2's preface: not here
	}
	r.note(first)
	in := bufio.NewReader(io.MultiReader(bytes.NewReader(first), io.TeeReader(c, noter{r})))
	for {
		q, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, q.Body); err != nil {
			return
		}
		if _, err := io.WriteString(c, r.answer); err != nil {
			return
		}
	}
}

func (r *recorder) note(p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen.Write(p)
}

type noter struct{ r *recorder }

func (n noter) Write(p []byte) (int, error) {
	n.r.note(p)
	return len(p), nil
}

// added is what Shoal adds to a head, once.
var added = regexp.MustCompile(`(?i)X-Request-Id: [0-9A-Za-z]{26}\r\ntraceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]\r\nShoal-Caller: (caller|gateway)\r\n(Shoal-Timeout-Ms: [0-9]+\r\n)?` +
	`(X-Forwarded-For: 127\.0\.0\.1\r\nX-Forwarded-Host: [^\r]*\r\nX-Forwarded-Proto: http\r\n)?`)

// saw returns what was sent to the application, without what Shoal adds.
func (r *recorder) saw() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return added.ReplaceAllString(r.seen.String(), "")
}

// caller is a connection on which a test speaks for itself.
type caller struct {
	net.Conn
	in *bufio.Reader
}

func dial(t testing.TB, addr string) *caller {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return &caller{c, bufio.NewReader(c)}
}

// reply is one answer: its status, 0 where the connection ended instead, and what it says.
type reply struct {
	status int
	reason string
	body   string
	closes bool
}

// reply reads one answer to a request of a method.
func (c *caller) reply(t testing.TB, method string) reply {
	t.Helper()
	res, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("no answer came, and no end")
	}
	if err != nil {
		return reply{closes: true}
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("an answer broke off: %v", err)
	}
	return reply{res.StatusCode, res.Header.Get("Shoal-Reason"), string(body), res.Close}
}

// ended reports whether the connection ends here, with nothing before that.
func (c *caller) ended() bool {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	n, err := c.in.Read(make([]byte, 1))
	return n == 0 && !errors.Is(err, os.ErrDeadlineExceeded)
}

// alike reports whether two sequences of requests are the same, byte for byte but for how their bodies are
// framed: a node frames anew what came in HTTP/2, by its length where all of it is there already.
func alike(saw, want string) bool {
	return saw == want || saw != "" && framedByLength(saw) == framedByLength(want)
}

// framedByLength frames each chunked request without trailers by its length; what is not whole stays as it is.
func framedByLength(text string) string {
	head, rest, ok := strings.Cut(text, "\r\n\r\n")
	before, after, chunked := strings.Cut(head+"\r\n", "Transfer-Encoding: chunked\r\n")
	if !ok || !chunked {
		return text
	}
	in := bufio.NewReader(strings.NewReader(head + "\r\n\r\n" + rest))
	q, err := http.ReadRequest(in)
	if err != nil {
		return text
	}
	body, err := io.ReadAll(q.Body)
	if err != nil || len(q.Trailer) > 0 {
		return text
	}
	behind, _ := io.ReadAll(in)
	return fmt.Sprintf("%s%sContent-Length: %d\r\n\r\n%s%s", before, after, len(body), body, behind)
}

// quote makes bytes readable, a line each.
func quote(s string) string {
	if s == "" {
		return "nothing"
	}
	return strings.NewReplacer("\r", `\r`, "\n", "\\n\n", "\x00", `\0`).Replace(s)
}
