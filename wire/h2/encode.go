package h2

import (
	"strconv"

	"github.com/shoalrun/shoal/wire/hpack"
)

// append appends h as a header block. The order, pseudo-header fields first, is section 8.3's.
func (h *Head) append(p []byte, enc *hpack.Encoder) []byte {
	enc.Begin()
	switch {
	case h.Status != 0:
		p = enc.Append(p, ":status", statusText(h.Status), false)
	case h.Method != "":
		p = h.appendRequest(p, enc)
	}
	for i := range h.Fields {
		f := &h.Fields[i]
		p = enc.Append(p, f.Name, f.Value, f.Sensitive || secret(f.Name))
	}
	return p
}

func (h *Head) appendRequest(p []byte, enc *hpack.Encoder) []byte {
	p = enc.Append(p, ":method", h.Method, false)
	if h.Protocol != "" {
		p = enc.Append(p, ":protocol", h.Protocol, false)
	}
	if h.Method != "CONNECT" || h.Protocol != "" {
		p = enc.Append(p, ":scheme", h.Scheme, false)
		p = enc.Append(p, ":path", h.Path, false)
	}
	if h.Authority != "" {
		p = enc.Append(p, ":authority", h.Authority, false)
	}
	return p
}

// secret reports whether a field's value is a credential, which no table is to keep.
func secret(name string) bool {
	switch name {
	case "authorization", "proxy-authorization", "set-cookie":
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
