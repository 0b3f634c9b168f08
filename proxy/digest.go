package proxy

import (
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/wire/h1"
	"github.com/shoalrun/shoal/wire/h2"
)

// comparedBytes is how much of two bodies is compared; beyond it only their length is.
const comparedBytes = 1 << 20

// digest is what is kept of an answer, to compare it with another one to the same request.
type digest struct {
	names  []string // of the fields that are kept
	values []string
	status int
	grpc   string // grpc-status; empty: none came
	length int64
	hash   maphash.Hash
	body   h1.Body // the framing of an answer in HTTP/1.1
}

// http1 notes a head in HTTP/1.1.
func (d *digest) http1(res *h1.Response, head []byte, toHead bool) {
	d.begin(res.Status, func(name string) string { return string(res.Get(head, name)) })
	d.body = res.Body(toHead)
}

// raw notes a part of a body with its framing in HTTP/1.1.
func (d *digest) raw(p []byte) {
	for len(p) > 0 {
		part, n, err := d.body.Next(p)
		if err != nil || n == 0 {
			return
		}
		d.add(part)
		p = p[n:]
	}
}

// http2 notes a head in HTTP/2.
func (d *digest) http2(h *h2.Head) {
	d.begin(h.Status, h.Get)
	d.trailers(h)
}

// trailers notes the status of a gRPC call.
func (d *digest) trailers(h *h2.Head) {
	if v := h.Get("grpc-status"); v != "" {
		d.grpc = strings.Clone(v)
	}
}

func (d *digest) begin(status int, get func(string) string) {
	d.status, d.length, d.grpc = status, 0, ""
	d.hash.SetSeed(digestSeed)
	d.values = d.values[:0]
	for _, name := range d.names {
		d.values = append(d.values, strings.Clone(get(name))) // the head may lie in a buffer that is given back
	}
}

// digestSeed is the same for all: digests are compared with each other.
var digestSeed = maphash.MakeSeed()

// add notes a part of a body's content.
func (d *digest) add(p []byte) {
	if room := comparedBytes - d.length; room > 0 {
		_, _ = d.hash.Write(p[:min(int64(len(p)), room)]) // never fails
	}
	d.length += int64(len(p))
}

// differences says how another answer differs, in phrases; none where it is the same.
func (d *digest) differences(other *digest) []string {
	var all []string
	note := func(what, theirs, ours string) {
		if ours != theirs {
			all = append(all, fmt.Sprintf("%s %s instead of %s", what, orNone(theirs), orNone(ours)))
		}
	}
	note("status", strconv.Itoa(other.status), strconv.Itoa(d.status))
	note("gRPC status", other.grpc, d.grpc)
	for i, name := range d.names {
		if i < len(d.values) && i < len(other.values) {
			note(name, shortened(other.values[i]), shortened(d.values[i]))
		}
	}
	switch {
	case d.length != other.length:
		all = append(all, fmt.Sprintf("a body of %d bytes instead of %d", other.length, d.length))
	case d.hash.Sum64() != other.hash.Sum64():
		all = append(all, fmt.Sprintf("another body of %d bytes", d.length))
	}
	return all
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// shortened keeps records small.
func shortened(s string) string {
	if len(s) > 64 {
		return s[:61] + "..."
	}
	return s
}
