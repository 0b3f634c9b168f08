package h2

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// encode writes h as a header block. The order, pseudo-header fields first, is section 8.3's.
func (h *Head) encode(enc *hpack.Encoder) {
	switch {
	case h.Status != 0:
		_ = enc.WriteField(Field{Name: ":status", Value: statusText(h.Status)})
	case h.Method != "":
		h.encodeRequest(enc)
	}
	for i := range h.Fields {
		f := h.Fields[i]
		f.Sensitive = f.Sensitive || Varies(f.Name)
		_ = enc.WriteField(f) // writes to memory; cannot fail
	}
}

func (h *Head) encodeRequest(enc *hpack.Encoder) {
	_ = enc.WriteField(Field{Name: ":method", Value: h.Method})
	if h.Protocol != "" {
		_ = enc.WriteField(Field{Name: ":protocol", Value: h.Protocol})
	}
	if h.Method != "CONNECT" || h.Protocol != "" {
		_ = enc.WriteField(Field{Name: ":scheme", Value: h.Scheme})
		_ = enc.WriteField(Field{Name: ":path", Value: h.Path, Sensitive: Passing(h.Path)})
	}
	if h.Authority != "" {
		_ = enc.WriteField(Field{Name: ":authority", Value: h.Authority})
	}
}

// Passing reports whether a path, having a query or being long, is most likely not sent again. Such a path
// gets no place in the compression table, and may be a view of a buffer.
func Passing(path string) bool { return len(path) > 64 || strings.IndexByte(path, '?') >= 0 }

// Varies reports whether a field is worth no place in the compression table, because its value is
// seldom sent twice: evicting the others for it costs more than it saves.
func Varies(name string) bool {
	switch name {
	case "x-request-id", "grpc-timeout", "content-length", "date", "etag", "traceparent", "tracestate",
		"age", "last-modified", "if-none-match", "if-modified-since", "set-cookie", "grpc-message",
		"authorization", "proxy-authorization", "idempotency-key", "location", "x-b3-spanid", "x-b3-traceid":
		return true
	}
	return false
}

var statusTexts = func() (t [500]string) {
	for i := range t {
		t[i] = strconv.Itoa(i + 100)
	}
	return t
}()

func statusText(code int) string {
	if code >= 100 && code < 600 {
		return statusTexts[code-100]
	}
	return strconv.Itoa(code)
}
