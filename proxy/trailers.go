package proxy

import (
	"strings"

	"github.com/shoalrun/shoal/wire/h1"
	"github.com/shoalrun/shoal/wire/h2"
)

// trailersOf returns what came behind a chunked body as a header list of HTTP/2; nil where nothing did.
// Fields that only Shoal may set are dropped.
func trailersOf(body *h1.Body) *h2.Head {
	var h *h2.Head
	for name, value := range body.Trailers {
		f := h2.Field{Name: lower(name), Value: string(value)}
		if strings.HasPrefix(f.Name, internalPrefix) {
			continue
		}
		if h == nil {
			h = &h2.Head{}
		}
		h.Fields = append(h.Fields, f)
	}
	return h
}

// appendLast ends a chunked body, with trailers where there are any.
func appendLast(out []byte, trailers *h2.Head) []byte {
	if trailers == nil {
		return append(out, h1.LastChunk...)
	}
	out = append(out, "0\r\n"...)
	for _, f := range trailers.Fields {
		out = append(append(out, f.Name...), ": "...)
		out = append(append(out, f.Value...), "\r\n"...)
	}
	return append(out, "\r\n"...)
}
