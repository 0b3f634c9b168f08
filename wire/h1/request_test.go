package h1_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/wire/h1"
)

func parseRequest(t *testing.T, text string) (*h1.Request, []byte, error) {
	t.Helper()
	b := []byte(text)
	n, err := h1.End(b, 0, h1.Limits{})
	if err != nil {
		return nil, nil, err
	}
	if n == 0 {
		return nil, nil, errors.New("incomplete")
	}
	r := new(h1.Request)
	return r, b[:n], r.Parse(b[:n], h1.Limits{})
}

func TestRequestForms(t *testing.T) {
	for _, c := range []struct{ text, line, host, path string }{
		{"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a?b=c HTTP/1.1\r\n", "x", "/a?b=c"},
		{"GET http://y:8080/a HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a HTTP/1.1\r\nHost: y:8080\r\n", "y:8080", "/a"},
		{"GET HTTP://y?q HTTP/1.1\r\nHost: x\r\n\r\n", "GET /?q HTTP/1.1\r\nHost: y\r\n", "y", "?q"},
		{"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\n", "x", "*"},
		{"OPTIONS http://y HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: y\r\n", "y", ""},
		{"CONNECT db:5432 HTTP/1.1\r\nHost: db\r\n\r\n", "CONNECT db:5432 HTTP/1.1\r\n", "db:5432", ""},
		{"GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\n", "", "/"},
		{"GET / HTTP/1.1\r\nhOST:\t [::1]:80 \r\n\r\n", "GET / HTTP/1.1\r\n", "[::1]:80", "/"},
	} {
		r, b, err := parseRequest(t, c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if got := string(r.AppendLine(nil, b)); got != c.line {
			t.Errorf("%q: forwarded as %q, want %q", c.text, got, c.line)
		}
		if h, p := string(r.Host.Of(b)), string(r.Path.Of(b)); h != c.host || p != c.path {
			t.Errorf("%q: host %q path %q, want %q %q", c.text, h, p, c.host, c.path)
		}
	}
}

// Each of these lets two readers disagree on where a message ends or whom it is for.
func TestRequestRejected(t *testing.T) {
	head := func(lines ...string) string {
		return "POST / HTTP/1.1\r\nHost: x\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	for name, c := range map[string]struct {
		text   string
		status int
		says   string
	}{
		"te and cl":             {head("Content-Length: 5", "Transfer-Encoding: chunked"), 400, "both"},
		"two cl":                {head("Content-Length: 5", "Content-Length: 5"), 400, "more than one Content-Length"},
		"cl list":               {head("Content-Length: 5, 5"), 400, "not a number"},
		"cl sign":               {head("Content-Length: +5"), 400, "not a number"},
		"cl empty":              {head("Content-Length:"), 400, "not a number"},
		"cl huge":               {head("Content-Length: 9999999999999999999"), 400, "not a number"},
		"te twice":              {head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400, "more than one Transfer"},
		"te other":              {head("Transfer-Encoding: gzip, chunked"), 501, "other than chunked"},
		"te vertical tab":       {head("Transfer-Encoding:\vchunked"), 400, "control character"},
		"te in 1.0":             {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "HTTP/1.0"},
		"obs-fold":              {head("X: a", " b"), 400, "obs-fold"},
		"fold first":            {"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400, "obs-fold"},
		"space before colon":    {head("Content-Length : 5"), 400, "white space between"},
		"bare lf":               {"GET / HTTP/1.1\nHost: x\n\n", 400, "bare LF"},
		"bare lf in a field":    {"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400, "bare LF"},
		"bare cr in a value":    {head("A: b\rc"), 400, "control character"},
		"nul in a value":        {head("A: b\x00c"), 400, "control character"},
		"no colon":              {head("Abc"), 400, "without a colon"},
		"empty name":            {head(": b"), 400, "without a name"},
		"bad name":              {head("A(b): c"), 400, "field's name"},
		"no host":               {"GET / HTTP/1.1\r\nA: b\r\n\r\n", 400, "Host"},
		"two hosts":             {head("Host: x"), 400, "Host"},
		"host with userinfo":    {"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, "host"},
		"host list":             {"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "host"},
		"absolute userinfo":     {"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, "host"},
		"absolute https":        {"GET https://b/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, "http URL"},
		"absolute without host": {"GET http:/// HTTP/1.1\r\nHost: b\r\n\r\n", 400, "host"},
		"relative":              {"GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400, "neither"},
		"two spaces":            {"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "target"},
		"space in target":       {"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400, "version"},
		"tab for space":         {"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "method"},
		"0.9":                   {"GET /\r\n\r\n", 400, "target"},
		"2.0":                   {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, "version"},
		"lower case":            {"GET / http/1.1\r\nHost: x\r\n\r\n", 400, "version"},
		"after version":         {"GET / HTTP/1.1 x\r\nHost: x\r\n\r\n", 400, "version"},
		"connect without port":  {"CONNECT x HTTP/1.1\r\nHost: x\r\n\r\n", 400, "CONNECT"},
		"connection names cl":   {head("Content-Length: 5", "Connection: close, content-length"), 400, "names content-length"},
		"connection names host": {head("Connection: Host"), 400, "names Host"},
		"fields":                {head(strings.Repeat("A: b\r\n", 300) + "A: b"), 431, "256"},
		"head":                  {head("A: " + strings.Repeat("b", 1<<17)), 431, "65536"},
		"method":                {strings.Repeat("M", 100) + " / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "64"},
	} {
		_, _, err := parseRequest(t, c.text)
		var e *h1.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: accepted (%v)", name, err)
			continue
		}
		if e.Status != c.status || !strings.Contains(e.Text, c.says) {
			t.Errorf("%s: %d %q, want %d and %q", name, e.Status, e.Text, c.status, c.says)
		}
	}
}

func TestHopByHopFieldsAreDropped(t *testing.T) {
	r, b, err := parseRequest(t, "GET / HTTP/1.1\r\nHost: x\r\nConnection: X-Secret, keep-alive\r\nA: 1\r\n"+
		"x-secret: 2\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nTE: trailers\r\nUpgrade: h2c\r\nB: 3\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(r.AppendFields(nil, b)), "Host: x\r\nA: 1\r\nTE: trailers\r\nB: 3\r\n"; got != want {
		t.Errorf("forwarded %q, want %q", got, want)
	}
	if r.Close || r.Upgrade || r.Intact() {
		t.Errorf("close %v, upgrade %v, intact %v", r.Close, r.Upgrade, r.Intact())
	}
}

func TestConnectionLife(t *testing.T) {
	for text, closes := range map[string]bool{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":                              false,
		"GET / HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n":    true,
		"GET / HTTP/1.0\r\n\r\n":                                         true,
		"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n":               false,
		"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive,, \r\n\r\n": false,
	} {
		r, _, err := parseRequest(t, text)
		if err != nil || r.Close != closes {
			t.Errorf("%q: close %v (%v), want %v", text, r.Close, err, closes)
		}
	}
}

func TestUpgradeKeepsItsField(t *testing.T) {
	r, b, err := parseRequest(t, "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if err != nil || !r.Upgrade {
		t.Fatalf("upgrade %v, %v", r.Upgrade, err)
	}
	if got, want := string(r.AppendFields(nil, b)), "Host: x\r\nUpgrade: websocket\r\n"; got != want {
		t.Errorf("forwarded %q, want %q", got, want)
	}
}

func TestEndSeesEachByteOnce(t *testing.T) {
	text := "GET / HTTP/1.1\r\nHost: x\r\n\r\nrest"
	end := strings.Index(text, "rest")
	for i := 1; i <= len(text); i++ {
		n, err := h1.End([]byte(text[:i]), i-1, h1.Limits{})
		want := 0
		if i == end {
			want = end
		}
		if err != nil || i <= end && n != want {
			t.Fatalf("after %d bytes: %d, %v", i, n, err)
		}
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	b := []byte("GET /a HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nUser-Agent: test/1\r\nConnection: keep-alive\r\n\r\n")
	r := new(h1.Request)
	out := make([]byte, 0, 512)
	run := func() {
		n, _ := h1.End(b, 0, h1.Limits{})
		if err := r.Parse(b[:n], h1.Limits{}); err != nil {
			t.Fatal(err)
		}
		r.AppendFields(r.AppendLine(out, b), b)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

func BenchmarkParseRequest(b *testing.B) {
	head := []byte("GET /a HTTP/1.1\r\nHost: inventory\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: test/1\r\n\r\n")
	r := new(h1.Request)
	out := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		n, _ := h1.End(head, 0, h1.Limits{})
		if err := r.Parse(head[:n], h1.Limits{}); err != nil {
			b.Fatal(err)
		}
		r.AppendFields(r.AppendLine(out, head), head)
	}
}

func TestBegins(t *testing.T) {
	for b, good := range map[string]bool{
		"": true, "G": true, "GET": true, "GET ": true, "GET / HTTP": true,
		"\x16\x03\x01": false, " GET": false, "GET\t": false, "GET/": false, strings.Repeat("x", h1.MaxMethod+1): false,
	} {
		if err := h1.Begins([]byte(b)); (err == nil) != good {
			t.Errorf("Begins(%q): %v", b, err)
		}
	}
}
