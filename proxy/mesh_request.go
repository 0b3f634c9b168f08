package proxy

import (
	"net"
	"strconv"

	"github.com/shoalrun/shoal/wire/h1"
	"github.com/shoalrun/shoal/wire/h2"
)

// compose makes c.request of the session's request, as the peer before x.place is to see it.
func (c *meshCall) compose(x *exchange) {
	s := c.s
	c.request = h2.Head{
		Method: c.words.word(s.req.Method.Of(s.head)), Scheme: "http",
		Authority: c.words.word(s.req.Host.Of(s.head)), Path: c.path(x),
	}
	f := c.fields[:0]
	for i := range s.req.Fields {
		if e := &s.req.Fields[i]; !e.Drop && (e.Kind == h1.Other || e.Kind == h1.ContentLength || e.Kind == h1.Expect) {
			f = append(f, c.words.field(e.Name.Of(s.head), e.Value.Of(s.head)))
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

// path is the request's path. One that has a query may be a view of the buffer: h2 keeps none of those.
func (c *meshCall) path(x *exchange) string {
	p := c.s.req.Path.Of(c.s.head)
	switch {
	case len(p) == 0 && x.obs.Method == "OPTIONS":
		return "*"
	case len(p) == 0:
		return "/"
	case p[0] == '?':
		return "/" + string(p)
	case h2.Passing(x.obs.Path):
		return x.obs.Path
	}
	return c.words.word(p)
}

func (s *session) appendForwardedHeaders(f []h2.Field) []h2.Field {
	if host, _, err := net.SplitHostPort(s.conn.RemoteAddr().String()); err == nil {
		f = append(f, h2.Field{Name: "x-forwarded-for", Value: host})
	}
	return append(f, h2.Field{Name: "x-forwarded-host", Value: string(s.req.Host.Of(s.head))},
		h2.Field{Name: "x-forwarded-proto", Value: "http"})
}

// words keeps the names and values that come again and again, as strings that a header compression may
// keep, so that they are not made anew for each message. The zero value is ready.
type words struct {
	known map[string]string // by how they came
	names map[string]string // field names, in lower case, by how they came
	seen  [64]uint32        // hashes of words that came once
}

// Limits of what words keeps.
const (
	maxWords = 256
	maxWord  = 256
)

// word returns b as a string that may be kept.
func (w *words) word(b []byte) string {
	if s, ok := w.known[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(b) <= maxWord && len(w.known) < maxWords {
		if w.known == nil {
			w.known = map[string]string{}
		}
		w.known[s] = s
	}
	return s
}

// field returns a field in lower case. A value that comes for the first time is a view of the buffer,
// marked as one that no table keeps.
func (w *words) field(name, value []byte) h2.Field {
	f := h2.Field{Name: w.name(name)}
	if s, ok := w.known[string(value)]; ok {
		f.Value = s
		return f
	}
	if len(value) > maxWord || !w.again(value) || h2.Varies(f.Name) {
		f.Value, f.Sensitive = view(value), true
		return f
	}
	f.Value = w.word(value)
	return f
}

// again reports whether a word came before, lately, and notes it.
func (w *words) again(b []byte) bool {
	h := uint32(2166136261) // FNV-1a
	for _, c := range b {
		h = (h ^ uint32(c)) * 16777619
	}
	at := &w.seen[h%uint32(len(w.seen))]
	was := *at
	*at = h
	return was == h
}

func (w *words) name(b []byte) string {
	if s, ok := w.names[string(b)]; ok {
		return s
	}
	s := lower(b)
	if len(b) <= maxWord && len(w.names) < maxWords {
		if w.names == nil {
			w.names = map[string]string{}
		}
		w.names[string(b)] = s
	}
	return s
}

func lower(b []byte) string {
	out := make([]byte, len(b))
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		out[i] = c
	}
	return string(out)
}

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
