package proxy

import (
	"bytes"
	"context"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/wire/h1"
)

// mirror is what a route copies, and where the copies go.
type mirror struct {
	*fleet.Mirror
	route *route // of the copies
	count *observe.Mirror
}

const (
	// maxCopies bounds the copies on their way from one process, and so the memory that they take.
	maxCopies = 64
	// copyTime bounds how long one may take where its route has no shorter timeout.
	copyTime = time.Minute
)

// mirror compiles the mirror of a declared route of s, for the calls of r. Copies go in the caller's name
// and by the same rules as a call that s hands over.
func (t *table) mirror(r *route, s *service, declared *fleet.Route) *mirror {
	if declared.Mirror == nil {
		return nil
	}
	leaf := *r
	leaf.name, leaf.kind = s.Name+"/"+declared.Name, fleet.KindMirror
	t.handOver(&leaf, s, declared.Mirror.Service)
	leaf.limitTime(copyTime)
	t.finish(&leaf)
	return &mirror{declared.Mirror, &leaf, t.p.cfg.Recorder.Mirror(s.Name, declared.Name, declared.Mirror.Service)}
}

// wants reports whether a request is to be copied: of its own choice only what is safe, since the other
// service will do what it says (RFC 9110 section 9.2.1).
func (m *mirror) wants(method string) bool {
	if m.Methods == nil && method != http.MethodGet && method != http.MethodHead && method != http.MethodOptions {
		return false
	}
	if m.Methods != nil && !slices.Contains(m.Methods, method) {
		return false
	}
	return m.Percent >= 100 || mrand.Float64()*100 < m.Percent
}

// watch begins to note what x is answered, where its route is mirrored.
func (x *exchange) watch() {
	if m := x.route.mirror; m != nil && !x.peer && m.wants(x.obs.Method) {
		x.digest = &digest{names: m.Headers}
	}
}

// request is a whole request, kept to be sent once more. It shares no memory with whom it came by.
type request struct {
	method, path, authority string
	header                  http.Header
	body                    []byte
	http2                   bool
}

// mirror sends a copy of what x was, once x is over: nobody waits for it.
func (x *exchange) mirror(f fields) {
	if x.digest == nil || x.original != nil || x.refusal != nil {
		return
	}
	m := x.route.mirror
	req := f.copy()
	if req == nil {
		m.count.Skipped.Add(1)
		return
	}
	select {
	case x.p.copies <- struct{}{}:
	default:
		m.count.Dropped.Add(1)
		return
	}
	req.header.Set("X-Request-Id", strings.Clone(x.obs.RequestID))
	req.header.Set("Traceparent", string(observe.AppendTraceparent(nil, x.obs.TraceID, x.obs.SpanID, x.obs.Sampled)))
	c := &copied{mirror: m, answer: x.digest, from: x.route.callee, over: make(chan struct{})}
	p, src := x.p, x.source
	go func() {
		defer func() { <-p.copies }()
		p.sendCopy(req, c, src)
	}()
}

// copied is one copy on its way: a call whose listener has it only.
type copied struct {
	*mirror
	answer *digest       // of the original
	from   string        // who gave that
	over   chan struct{} // closed once it is compared
}

// sendCopy makes a call of req, which takes the same walk as any other. What it is answered is looked at
// on the way, so that there is nothing left to do with it here.
func (p *Proxy) sendCopy(req *request, c *copied, src Source) {
	if !p.enter() {
		return
	}
	defer p.leave()
	l := &listener{p: p, source: src, aim: aimMirror, copied: c, sessions: map[hurried]struct{}{}}
	defer l.release()
	ctx, cancel := context.WithTimeout(p.ctx, copyTime)
	defer cancel()
	t := &http.Transport{
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return l.open() },
		DisableCompression: true, Protocols: new(http.Protocols),
	}
	t.Protocols.SetHTTP1(!req.http2)
	t.Protocols.SetUnencryptedHTTP2(req.http2)
	defer t.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, req.method, "http://copy"+req.path, bytes.NewReader(req.body))
	if err != nil {
		c.count.Skipped.Add(1) // what net/http cannot say again
		return
	}
	r.Host, r.Header = req.authority, req.header
	if req.header.Get("User-Agent") == "" {
		r.Header["User-Agent"] = nil // else net/http adds its own
	}
	res, err := t.RoundTrip(r)
	if err != nil {
		return // the exchange has recorded why
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	select {
	case <-c.over: // before it, closing would look as if the caller had left
	case <-ctx.Done():
	}
}

// findCopy sets the route of a copy, and whose answer its own is compared with.
func (c *copied) find(x *exchange) {
	x.route, x.original = c.route, c
	x.digest = &digest{names: c.Headers}
}

// compare notes what became of a copy.
func (x *exchange) compare() {
	c := x.original
	if c == nil {
		return
	}
	defer close(c.over)
	m := &fleet.Compared{With: c.from}
	x.obs.Compared = m
	switch {
	case x.refusal != nil:
		c.count.Unanswered.Add(1)
	case !c.Compare:
		c.count.Sent.Add(1)
		x.obs.Compared = nil
	default:
		m.Differences = c.answer.differences(x.digest)
		if len(m.Differences) == 0 {
			c.count.Same.Add(1)
			return
		}
		c.count.Different.Add(1)
	}
}

// copy returns the request as it came, if all of it is still here.
func (s *session) copy() *request {
	if s.head == nil || s.req.Upgrade || s.req.Form == h1.Authority {
		return nil
	}
	raw, whole := s.first, s.body.Done()
	if s.pump != nil {
		raw, whole = s.pump.replay, s.pump.body.Done() && s.pump.replay != nil
	}
	body := s.req.Body()
	content, ok := decoded(&body, raw)
	if !whole || !ok {
		return nil
	}
	x := &s.x
	r := &request{
		method: strings.Clone(x.obs.Method), path: strings.Clone(x.obs.Path), authority: string(s.req.Host.Of(s.head)),
		header: http.Header{}, body: content,
	}
	for i := range s.req.Fields {
		if f := &s.req.Fields[i]; !f.Drop && f.Kind == h1.Other {
			r.header.Add(string(f.Name.Of(s.head)), string(f.Value.Of(s.head)))
		}
	}
	return r
}

// decoded is the content of a body without its framing.
func decoded(b *h1.Body, raw []byte) (content []byte, ok bool) {
	for len(raw) > 0 {
		part, n, err := b.Next(raw)
		if err != nil || n == 0 {
			return nil, false
		}
		content, raw = append(content, part...), raw[n:]
	}
	return content, b.Done()
}

// copy returns the request as it came, if all of it is still here.
func (s *http2Stream) copy() *request {
	if !s.down.Ended() || s.down.Trailers() != nil || s.bytesIn != int64(len(s.replay)) || s.obs.Method == http.MethodConnect {
		return nil
	}
	r := &request{
		method: strings.Clone(s.obs.Method), path: strings.Clone(s.obs.Path), authority: strings.Clone(s.authority),
		header: http.Header{}, body: bytes.Clone(s.replay), http2: true,
	}
	for _, f := range s.fields {
		if f.Name != "host" && f.Name != "content-length" {
			r.header.Add(strings.Clone(f.Name), strings.Clone(f.Value))
		}
	}
	if s.grpc && s.timeout != "" {
		r.header.Set("Grpc-Timeout", strings.Clone(s.timeout))
	}
	return r
}

// copy: bytes are not copied.
func (t *tunnel) copy() *request { return nil }
