package proxy

import (
	"net"
	"slices"
	"strconv"

	"github.com/shoalrun/shoal/wire/h1"
	"github.com/shoalrun/shoal/wire/h2"
)

// compose makes c.request of the session's request, as the peer before x.place is to see it.
func (c *meshCall) compose(x *exchange) {
	s := c.s
	c.request = h2.Head{Method: x.obs.Method, Scheme: "http", Authority: view(s.req.Host.Of(s.head)), Path: c.path(x)}
	c.names.reset()
	f := c.fields[:0]
	for i := range s.req.Fields {
		if e := &s.req.Fields[i]; !e.Drop && (e.Kind == h1.Other || e.Kind == h1.ContentLength || e.Kind == h1.Expect) {
			f = append(f, h2.Field{Name: c.names.name(e.Name.Of(s.head)), Value: view(e.Value.Of(s.head))})
		}
	}
	f = append(f, h2.Field{Name: "x-request-id", Value: x.obs.RequestID},
		h2.Field{Name: "traceparent", Value: view(x.appendTraceparent(x.parent[:0]))})
	if x.place.peer() {
		f = x.appendPeerFields(f, true)
	} else if x.route.service != nil {
		f = append(f, h2.Field{Name: "shoal-caller", Value: x.source.Service})
	}
	if x.tells() {
		f = append(f, h2.Field{Name: timeoutField, Value: strconv.FormatInt(x.leftMillis(), 10), Sensitive: true})
	}
	if s.from.aim == aimEdge {
		f = s.appendForwardedHeaders(f)
	}
	c.fields = f
	c.request.Fields = f
}

// path is the request's path.
func (c *meshCall) path(x *exchange) string {
	p := c.s.req.Path.Of(c.s.head)
	switch {
	case len(p) == 0 && x.obs.Method == "OPTIONS":
		return "*"
	case len(p) == 0:
		return "/"
	case p[0] == '?':
		return "/" + string(p)
	}
	return x.obs.Path
}

func (s *session) appendForwardedHeaders(f []h2.Field) []h2.Field {
	if host, _, err := net.SplitHostPort(s.conn.RemoteAddr().String()); err == nil {
		f = append(f, h2.Field{Name: "x-forwarded-for", Value: host})
	}
	return append(f, h2.Field{Name: "x-forwarded-host", Value: string(s.req.Host.Of(s.head))},
		h2.Field{Name: "x-forwarded-proto", Value: "http"})
}

// http2Names makes names for HTTP/2 of those of HTTP/1.1. The zero value is ready.
type http2Names struct{ text []byte }

// name returns b in lower case, valid until reset, and no longer than b.
func (n *http2Names) name(b []byte) string {
	if !slices.ContainsFunc(b, isUpper) {
		return view(b)
	}
	at := len(n.text)
	n.text = appendLower(n.text, b)
	return view(n.text[at:])
}

func (n *http2Names) reset() { n.text = n.text[:0] }

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

func appendLower(dst, b []byte) []byte {
	for _, c := range b {
		if isUpper(c) {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}

func lower(b []byte) string { return string(appendLower(nil, b)) }

// link is the way of an exchange to x.place.
func (x *exchange) link() *http2Link {
	return x.place.link(x.route.port.Number, x.source.Service)
}

// bulkSize is from how many bytes on a body takes the connection for bulk.
const bulkSize = 256 << 10

// linkFor is linkOf, for who can tell more. Answers show their size too late: who was
// answered at length lately asks on the connection for bulk.
func (x *exchange) linkFor(length int64) *http2Link {
	if x.route.load.lengthy.Load() > 0 {
		return x.bulkLink()
	}
	return x.linkOf(length)
}

// linkOf is the way for a request of so many bytes (-1: unknown).
func (x *exchange) linkOf(length int64) *http2Link {
	if length >= bulkSize {
		return x.bulkLink()
	}
	return x.link()
}

// lengthyFor is for how many answers a long one is remembered.
const lengthyFor = 16

// noteLength remembers that an answer was long, or forgets a little.
func (x *exchange) noteLength(length int64) {
	if length >= bulkSize {
		x.route.load.lengthy.Store(lengthyFor)
	} else if n := x.route.load.lengthy.Load(); n > 0 {
		x.route.load.lengthy.CompareAndSwap(n, n-1)
	}
}

// bulkLink is the way of what moves many bytes.
func (x *exchange) bulkLink() *http2Link {
	if x.place.via != nil {
		return &x.place.via.bulk
	}
	return x.link()
}
