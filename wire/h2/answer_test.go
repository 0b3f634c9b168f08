package h2_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/wire/h2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// An answer that this codec takes x/net's client must take for the same one: status, length and fields.
func FuzzAnswer(f *testing.F) {
	for _, fields := range [][]string{
		{":status", "200", "content-length", "0", "x-a", "b", "set-cookie", "a=b", "set-cookie", "c=d"},
		{":status", "204"},
		{":status", "404", "content-type", ""},
		{":status", "600"},
		{":status", "200", "connection", "close"},
		{":status", "200", "X-A", "a\r\nb"},
		{":status", "200", "content-length", "5"},
	} {
		f.Add(strings.Join(fields, "\x1f"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		parts := strings.Split(text, "\x1f")
		var fields []h2.Field
		for i := 0; i+1 < len(parts); i += 2 {
			fields = append(fields, h2.Field{Name: parts[i], Value: parts[i+1]})
		}
		h, why := h2.ParseResponse(slices.Clone(fields))
		if why != "" || h.Status < 200 || h.Length > 0 {
			return // stricter than x/net, or no whole answer without a body
		}
		res := read(t, fields)
		if res == nil {
			t.Fatalf("x/net refuses %q", parts)
		}
		if res.StatusCode != h.Status || h.Length >= 0 && res.ContentLength != h.Length {
			t.Fatalf("%d, %d bytes; x/net says %d, %d", h.Status, h.Length, res.StatusCode, res.ContentLength)
		}
		ours := http.Header{}
		for _, f := range h.Fields {
			ours.Add(f.Name, f.Value)
		}
		for name, values := range ours {
			if name != "Trailer" && !slices.Equal(values, res.Header[name]) {
				t.Fatalf("%s: %q; x/net says %q", name, values, res.Header[name])
			}
		}
	})
}

// read has x/net's client read an answer without a body; nil where it refuses.
func read(t *testing.T, fields []h2.Field) *http.Response {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		_ = enc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	near, far := net.Pipe()
	defer near.Close()
	fr := http2.NewFramer(far, far)
	asked := make(chan uint32, 1)
	go func() {
		defer close(asked)
		_, _ = io.ReadFull(far, make([]byte, len(http2.ClientPreface)))
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if f.Header().Type == http2.FrameHeaders {
				asked <- f.Header().StreamID
			}
		}
	}()
	go func() {
		_ = fr.WriteSettings()
		if id, ok := <-asked; ok {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
		}
	}()
	//lint:ignore SA1019 net/http dials by itself, and this is one connection
	tr := &http2.Transport{DisableCompression: true}
	//lint:ignore SA1019 the same
	cc, err := tr.NewClientConn(near)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", "http://a/", nil)
	res, err := cc.RoundTrip(r)
	if err != nil {
		return nil
	}
	_ = res.Body.Close()
	return res
}
