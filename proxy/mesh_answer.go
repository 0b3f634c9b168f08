package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h1"
	"github.com/shoalrun/shoal/wire/h2"
)

// meshOutcome is how an attempt ended on a stream to another node.
func meshOutcome(err error, begun bool) outcome {
	var broken *h2.StreamError
	switch {
	case errors.Is(err, errGone):
		return outcome{reason: fleet.ReasonCallerGone, begun: begun}
	case errors.Is(err, errTimeout):
		return outcome{reason: fleet.ReasonTimeout, begun: begun}
	case errors.As(err, &broken):
		return brokenStream(broken, begun, true)
	}
	return outcome{reason: fleet.ReasonUpstreamReset, begun: begun, detail: err.Error()}
}

// framing is how a body is told from what follows it.
type framing uint8

const (
	bodiless framing = iota
	counted          // Content-Length
	inChunks
	toTheEnd // of the connection
)

// framing of an answer with head h.
func (c *meshCall) framing(h *h2.Head) framing {
	switch {
	case c.s.x.obs.Method == "HEAD", h.Status == 204, h.Status == 304:
		return bodiless
	case c.s.req.Minor > 0 && h.Get("trailer") != "":
		return inChunks // the only framing that has room for what was announced
	case h.Length >= 0 || c.ended && c.st.Trailers() == nil:
		return counted
	case c.s.req.Minor == 0:
		return toTheEnd
	}
	return inChunks
}

// relay passes the answer, whose head is there, on to the caller.
func (c *meshCall) relay(x *exchange) outcome {
	s := c.s
	h := c.st.Head()
	x.obs.Status = h.Status
	if x.digest != nil {
		x.digest.http2(h)
	}
	if !x.place.peer() {
		hideInternalFields(h)
	} else if o := x.refusedByPeer(fleet.Reason(h.Get("shoal-reason"))); o.reason != "" {
		c.end(x)
		return o
	}
	if s.pump != nil {
		x.replayable = false // its copy is the pump's, which goes on
	}
	if h.Status == 503 && x.unavailable(h.Get("retry-after")) {
		c.end(x)
		return outcome{repeat: true}
	}
	b := getBuffer()
	defer putBuffer(b)
	c.mu.Lock()
	f, ended, buffered := c.framing(h), c.ended, c.st.Buffered()
	c.mu.Unlock()
	unread := s.pump != nil && !s.pump.read.Load()
	s.keep = s.keep && f != toTheEnd && !s.closing.Load() && (!ended || !unread)
	if f == inChunks && h.Length >= 0 {
		h.Fields = slices.DeleteFunc(h.Fields, func(f h2.Field) bool { return f.Name == "content-length" })
	}
	if h.Length > largeSize {
		b.enlarge()
	}
	out := s.appendHead(b.b[:0], h)
	if f == inChunks {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	} else if f == counted && h.Length < 0 {
		out = append(strconv.AppendInt(append(out, "Content-Length: "...), int64(buffered), 10), '\r', '\n')
	}
	out = append(out, '\r', '\n')
	x.noteLength(h.Length)
	stream := h.Length < 0 && !ended || h.Length > bodyTimeout || x.obs.Reason != "" // a peer's refusal may come at the deadline
	s.begun = true
	if stream {
		x.rest()
	}
	x.headAfter = 0
	if !ended {
		x.headAfter = time.Since(x.obs.Time) - x.last().Start
	}
	err := c.body(x, b, out, f, stream)
	o := c.over(x, ended && unread, err)
	if stream && o.reason == fleet.ReasonTimeout {
		o.final = timedOut(x.route.callee, x.route.idle)
	}
	return o
}

// body writes out, and behind it the body as it comes; in one piece, where it is here.
func (c *meshCall) body(x *exchange, b *buffer, out []byte, f framing, stream bool) error {
	s := c.s
	for {
		n, last, err := c.piece(out[len(out):cap(out)], f)
		if err != nil {
			return errors.Join(err, s.writeIf(out))
		}
		out = out[:len(out)+n]
		x.obs.BytesOut += int64(len(out))
		if len(out) > 0 && s.write(out) != nil {
			return errGone
		}
		if last {
			return nil
		}
		out = b.b[:0]
		until := x.deadline
		if stream {
			until = time.Now().Add(x.route.idle)
		}
		if err := c.await(x, until, c.some); err != nil {
			return err
		}
	}
}

// writeIf writes what there is.
func (s *session) writeIf(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	return s.write(out)
}

// chunkRoom is what the framing of a chunk and of the last one takes.
const chunkRoom = 16

// piece puts what is here of the body, framed, into p, and says whether that was all.
func (c *meshCall) piece(p []byte, f framing) (n int, last bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f {
	case bodiless:
		return 0, true, nil
	case inChunks:
		n = c.chunk(p)
	default:
		n = c.st.Take(nil, p)
		c.note(p[:n])
	}
	last = c.ended && c.st.Buffered() == 0
	if n == 0 && !last && c.err != nil {
		return 0, false, c.err
	}
	if last && f == inChunks {
		return c.last(p, n)
	}
	return n, last, nil
}

// last puts the end of a chunked body into p behind n bytes, if there is room for it.
func (c *meshCall) last(p []byte, n int) (_ int, all bool, err error) {
	trailers := c.st.Trailers()
	if trailers == nil && len(p)-n < len(h1.LastChunk) {
		return n, false, nil
	}
	if trailers == nil {
		return n + copy(p[n:], h1.LastChunk), true, nil
	}
	end := appendLast(nil, trailers)
	switch {
	case len(end) > h1.MaxTrailers:
		return 0, false, fmt.Errorf("answered with trailers of more than %d bytes", h1.MaxTrailers)
	case len(p)-n < len(end):
		return n, false, nil
	}
	return n + copy(p[n:], end), true, nil
}

// note keeps what is compared of the body.
func (c *meshCall) note(content []byte) {
	if d := c.s.x.digest; d != nil {
		d.add(content)
	}
}

// chunk puts one chunk into p, with a size of four digits.
func (c *meshCall) chunk(p []byte) int {
	if len(p) <= chunkRoom || c.st.Buffered() == 0 {
		return 0
	}
	const head = len("0000\r\n")
	n := c.st.Take(nil, p[head:min(len(p)-chunkRoom+head, 1<<16-1)])
	c.note(p[head : head+n])
	const digits = "0123456789abcdef"
	for i := range 4 {
		p[i] = digits[n>>(12-4*i)&15]
	}
	p[4], p[5] = '\r', '\n'
	return head + n + copy(p[head+n:], "\r\n")
}

// over ends an exchange whose answer began.
func (c *meshCall) over(x *exchange, early bool, err error) outcome {
	s := c.s
	if err == nil {
		if s.pump != nil && (early || !s.finishPump(x, c)) {
			s.keep = false
		}
		c.end(x)
		return outcome{}
	}
	c.end(x)
	s.breakOff()
	return meshOutcome(err, true)
}

// appendHead writes an HTTP/2 head for the caller, without the empty line.
func (s *session) appendHead(dst []byte, h *h2.Head) []byte {
	dst = appendStatus(dst, h)
	if s.from.tellsID && h.Get("x-request-id") == "" {
		dst = appendField(dst, requestIDField, s.x.obs.RequestID)
	}
	if !s.keep {
		return append(dst, "Connection: close\r\n"...)
	}
	if s.req.Minor == 0 {
		return append(dst, "Connection: keep-alive\r\n"...)
	}
	return dst
}

// appendStatus writes the status line and the fields, none of which can have a byte that ends a line.
func appendStatus(dst []byte, h *h2.Head) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(h.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, http.StatusText(h.Status)...)
	dst = append(dst, '\r', '\n')
	for i := range h.Fields {
		f := &h.Fields[i]
		dst = append(append(dst, f.Name...), ": "...)
		dst = append(append(dst, f.Value...), '\r', '\n')
	}
	return dst
}

func appendInterim(dst []byte, h *h2.Head) []byte {
	return append(appendStatus(dst, h), '\r', '\n')
}
