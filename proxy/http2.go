package proxy

import (
	"bytes"
	"net"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h2"
)

// http2Session is one client connection that speaks HTTP/2. Its requests are taken on the goroutine
// that reads it.
type http2Session struct {
	p      *Proxy
	from   *listener
	target target // of every request, where the listener's aim says so
	remote string // the client's address, at the gateway
	nc     net.Conn
	conn   *h2.Conn

	table *table // that route is of
	route *route
	host  string // that route is for, where requests name it

	introduced map[string]introduced // by what peers say, for table
}

// serveHTTP2 takes over a connection whose first bytes, which it still holds, are HTTP/2's preface.
func (s *session) serveHTTP2() {
	early := bytes.Clone(s.in.bytes())
	s.releaseBuffer()
	s.disarm()
	c := &http2Session{p: s.p, from: s.from, target: s.target, nc: s.conn}
	if s.from.aim == aimEdge {
		c.remote, _, _ = net.SplitHostPort(s.conn.RemoteAddr().String()) // empty where it has none
	}
	c.serve(s.p.http2Config(), early)
}

// serve serves requests until the connection ends.
func (c *http2Session) serve(config h2.Config, early []byte) {
	config.TooLarge = c.reject
	c.conn = h2.NewServer(c.nc, config, c.accept)
	if !c.from.keep(c) {
		c.conn.Shutdown()
	}
	defer c.from.drop(c)
	_ = c.conn.Run(c.p.ctx, early) // what the client did wrong, it was told
}

// hurry lets the requests in progress end, or not.
func (c *http2Session) hurry(now bool) {
	if now {
		c.conn.Close()
		return
	}
	c.conn.Shutdown()
}

// accept takes a request: as far as its answer, if nothing is to be waited for.
func (c *http2Session) accept(st *h2.Stream, b *h2.Batch) {
	if c.from.aim == aimPeer && st.Head().Method == "CONNECT" {
		c.acceptConnect(st)
		return
	}
	if st.Head().Method == "CONNECT" {
		c.acceptTunnel(st)
		return
	}
	s := http2Streams.Get().(*http2Stream)
	s.mu.Lock()
	defer s.mu.Unlock()
	st.SetReceiver(s)
	s.session, s.down, s.phase = c, st, waiting
	s.begin(c.p, c.from.source, &s.away)
	s.stalled = &s.deaf
	s.describe(st.Head())
	c.find(s)
	s.start(b)
}

// find sets the exchange's route, as session.find does for HTTP/1.1.
func (c *http2Session) find(s *http2Stream) {
	x := &s.exchange
	switch c.from.aim {
	case aimFixed, aimCapture:
		if c.table != x.table {
			c.remember(x.table, x.table.route(x.source.Service, c.target))
		}
	case aimHost:
		if c.table != x.table || s.authority != c.host {
			c.host = strings.Clone(s.authority)
			c.remember(x.table, x.table.route(x.source.Service, parseTarget(c.host)))
		}
	case aimEdge:
		c.findExposed(s)
	case aimPeer:
		c.findForPeer(s)
		return
	case aimMirror:
		c.from.copied.find(x)
		return
	}
	x.route = c.route
}

func (c *http2Session) remember(t *table, r *route) { c.table, c.route = t, r }

func (c *http2Session) findExposed(s *http2Stream) {
	x := &s.exchange
	service, ok := c.from.match(s.authority, x.obs.Path)
	switch {
	case !ok:
		refused := *x.table.route(fleet.Gateway, target{host: "-"})
		refused.callee, refused.refusal = "-", nothingExposed(strings.Clone(s.authority))
		c.host = ""
		c.remember(x.table, &refused)
	case c.table != x.table || c.host != service:
		c.host = service
		c.remember(x.table, x.table.route(fleet.Gateway, target{host: service}))
	}
}

// describe notes what stages and records need to know of the request, and collects the fields that
// are forwarded.
func (s *http2Stream) describe(h *h2.Head) {
	x := &s.exchange
	x.obs.Method, x.obs.Path, s.authority = h.Method, h.Path, h.Authority
	x.idempotent = idempotent(h.Method)
	s.request = h2.Head{Method: h.Method, Scheme: h.Scheme, Authority: h.Authority, Path: h.Path, Protocol: h.Protocol}
	id := ""
	var t traceFields
	edge := s.session.from.aim == aimEdge
	for i := range h.Fields {
		f := &h.Fields[i]
		switch {
		case f.Name == "x-request-id":
			id = f.Value
			continue
		case f.Name == "traceparent":
			t.parent(f.Value)
			continue
		case f.Name == "tracestate":
			t.state(f.Value)
		case f.Name == "grpc-timeout":
			s.timeout = f.Value
			continue
		case f.Name == "host":
			continue // :authority says the same
		case f.Name == "content-type":
			s.grpc = isGRPC(f.Value)
		case f.Name == "idempotency-key":
			x.idempotent = true
		case f.Name == timeoutField && !edge:
			x.asked(f.Value)
			continue
		case forged(f.Name), edge && alike(f.Name, "x-forwarded-"):
			continue // nobody before this process is trusted with them
		}
		s.fields = append(s.fields, *f)
	}
	x.requestID([]byte(id))
	x.trace(t.trace())
	if t.dropsState() {
		s.fields = slices.DeleteFunc(s.fields, func(f h2.Field) bool { return f.Name == "tracestate" })
		return
	}
	t.noteState(&x.obs)
}

// field is what stages look at: the fields that are forwarded.
func (s *http2Stream) field(name string, nth int) (string, bool) {
	if name == "host" {
		return s.authority, nth == 0 && s.authority != ""
	}
	for i := range s.fields {
		if s.fields[i].Name != name {
			continue
		}
		if nth == 0 {
			return s.fields[i].Value, true
		}
		nth--
	}
	return "", false
}

// compose completes the request's head as x.place is to see it.
func (s *http2Stream) compose() *h2.Head {
	x := &s.exchange
	f := append(s.fields, h2.Field{Name: "x-request-id", Value: x.obs.RequestID},
		h2.Field{Name: "traceparent", Value: view(x.appendTraceparent(x.parent[:0]))})
	if x.route.service != nil {
		f = append(f, h2.Field{Name: "shoal-caller", Value: x.source.Service})
	}
	if t := s.grpcTimeout(); t != "" {
		f = append(f, h2.Field{Name: "grpc-timeout", Value: t})
	} else if x.tells() {
		f = append(f, s.timeoutField())
	}
	if x.place.peer() {
		f = x.appendPeerFields(f, s.http1)
	}
	if c := s.session; c.from.aim == aimEdge {
		f = append(f, h2.Field{Name: "x-forwarded-for", Value: c.remote},
			h2.Field{Name: "x-forwarded-host", Value: s.authority}, h2.Field{Name: "x-forwarded-proto", Value: "http"})
	}
	s.fields = f[:len(s.fields)] // keeps what it grew to
	s.request.Fields = f
	return &s.request
}
