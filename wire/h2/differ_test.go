package h2_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/wire/h2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// strictness is where this codec rejects a header list that x/net/http2 accepts, with the reason for it.
var strictness = map[string]string{
	"forbidden character":    "RFC 9113 section 8.2.1 forbids the white space at an end that x/net leaves",
	"more than one host":     "RFC 9110 section 7.2; x/net takes the first",
	"is not :authority":      "RFC 9113 section 8.3.1: a server should treat it as malformed; x/net lets :authority win",
	"content-length is not":  "x/net takes any of several, and ignores what is no number",
	":path":                  "in HTTP/1.1 it would be no request target",
	":authority":             "RFC 9110 section 4.2.4: no user, no path; x/net leaves it to the handler",
	":scheme":                "RFC 3986 section 3.1; x/net takes http and https, or anything",
	":method":                "RFC 9110 section 5.6.2: a token",
	"te is":                  "x/net lets several te pass, of which one is trailers",
	"connection-specific":    "RFC 9113 section 8.2.2; x/net does not know all of them",
	"a request has":          "x/net's server has defaults for some",
	"CONNECT":                "RFC 9113 section 8.5",
	":protocol":              "x/net knows it only where it is switched on",
	"a field without a name": "RFC 9110 section 5.1",
	"twice":                  "RFC 9113 section 8.3: x/net compares no empty ones",
	"does not belong here":   "RFC 9113 section 8.3",
	"upper-case":             "RFC 9113 section 8.2",
	"after a regular one":    "RFC 9113 section 8.3",
}

// A header list that this codec takes for a request, x/net's server must take for the same one.
func FuzzHead(f *testing.F) {
	for _, fields := range [][]string{
		{":method", "GET", ":scheme", "http", ":path", "/a?b", ":authority", "x:1", "cookie", "a=b", "x-a", ""},
		{":method", "POST", ":scheme", "https", ":path", "/", "host", "x", "content-length", "0", "te", "trailers"},
		{":method", "CONNECT", ":authority", "x:1"},
		{":method", "OPTIONS", ":scheme", "http", ":path", "*", ":authority", "x"},
		{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "x", "connection", "close"},
		{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "x", "host", "y", "X-A", "a\r\nb"},
	} {
		f.Add(strings.Join(fields, "\x1f"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		parts := strings.Split(text, "\x1f")
		var fields []h2.Field
		for i := 0; i+1 < len(parts); i += 2 {
			fields = append(fields, h2.Field{Name: parts[i], Value: parts[i+1]})
		}
		h, why := h2.ParseRequest(slices.Clone(fields))
		theirs := other(t, fields)
		switch {
		case why == "" && theirs == nil:
			_, badURL := url.ParseRequestURI(h.Path) // by rules of net/url's own; nothing hangs on them here
			if h.Length <= 0 && h.Protocol == "" && badURL == nil {
				t.Fatalf("x/net rejects %q", parts)
			}
		case why == "":
			same(t, &h, theirs)
		case theirs != nil:
			listed(t, parts, why)
		}
	})
}

func listed(t *testing.T, parts []string, why string) {
	for part := range strictness {
		if strings.Contains(why, part) {
			return
		}
	}
	t.Fatalf("x/net accepts %q, and this codec says %s", parts, why)
}

// other asks x/net's server; nil where it does not serve the request.
func other(t *testing.T, fields []h2.Field) *http.Request {
	var in, block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		_ = enc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	in.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&in, nil)
	_ = fr.WriteSettings()
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
	near, far := net.Pipe()
	var served *http.Request
	done := make(chan struct{})
	go func() {
		defer close(done)
		//lint:ignore SA1019 net/http wants a listener, and this is one connection
		new(http2.Server).ServeConn(far, &http2.ServeConnOpts{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { served = r })})
	}()
	go func() { _, _ = near.Write(in.Bytes()) }()
	out := http2.NewFramer(nil, near)
	for over := false; !over; { // until the stream's end, or the connection's
		f, err := out.ReadFrame()
		if err != nil {
			break
		}
		_, gone := f.(*http2.GoAwayFrame)
		_, reset := f.(*http2.RSTStreamFrame)
		over = gone || reset || f.Header().StreamID == 1 && f.Header().Flags.Has(http2.FlagDataEndStream)
	}
	go func() { _, _ = io.Copy(io.Discard, near) }()
	near.Close()
	<-done
	return served
}

// same compares what both made of a header list.
func same(t *testing.T, h *h2.Head, r *http.Request) {
	if r.Method != h.Method || r.Host != h.Authority || h.Method != "CONNECT" && r.RequestURI != h.Path {
		t.Fatalf("%s %q %q; x/net says %s %q %q", h.Method, h.Authority, h.Path, r.Method, r.Host, r.RequestURI)
	}
	ours := http.Header{}
	for _, f := range h.Fields {
		switch f.Name {
		case "host", "cookie", "trailer", "expect": // which net/http puts elsewhere
		default:
			ours.Add(f.Name, f.Value)
		}
	}
	for _, name := range []string{"Host", "Cookie", "Trailer", "Expect"} {
		r.Header.Del(name)
	}
	for name, values := range ours {
		if !slices.Equal(values, r.Header[name]) {
			t.Fatalf("%s: %q; x/net says %q", name, values, r.Header[name])
		}
	}
}
