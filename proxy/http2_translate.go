package proxy

import (
	"errors"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h1"
	"github.com/shoalrun/shoal/wire/h2"
)

// translation forwards an HTTP/2 request to an application that speaks HTTP/1.1. Two goroutines do it:
// one sends the body, the other, which walks, reads the answer.
type translation struct {
	s      *http2Stream
	u      *upstream
	b      *buffer
	res    h1.Response
	framed bool       // the body is chunked
	began  bool       // somebody sends the body, and tells on sent how that ended
	sent   chan error // has room for one
	fields []h2.Field
}

// translate makes an attempt in HTTP/1.1.
func (s *http2Stream) translate() outcome {
	u, o := s.connect()
	if u == nil {
		return o
	}
	t := &translation{s: s, u: u, b: getBuffer(), sent: make(chan error, 1)}
	defer putBuffer(t.b)
	s.mu.Lock()
	s.phase, s.plain, s.sent = translating, u, 0
	s.arm(s.deadline)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.phase, s.plain, s.until = waiting, nil, time.Time{}
		s.mu.Unlock()
	}()
	if err := t.request(); err != nil {
		return t.failed(err)
	}
	if err := t.head(); err != nil {
		return t.failed(err)
	}
	return t.answer()
}

// request writes the head and has the body sent beside the answer.
func (t *translation) request() error {
	s := t.s
	if s.left() {
		return errGone
	}
	s.mu.Lock()
	none := s.down.Ended() && len(s.replay) == 0
	s.mu.Unlock()
	h := s.compose()
	t.framed = !none && s.down.Head().Length < 0
	out := appendHTTP1(make([]byte, 0, 1024), h, s.authority, t.framed)
	if none && s.down.Head().Length < 0 && !s.idempotent {
		out = append(out, "Content-Length: 0\r\n"...)
	}
	if err := t.u.write(&s.exchange, append(out, '\r', '\n')); err != nil {
		return err
	}
	t.began = true
	if none {
		t.sent <- nil
		return nil
	}
	_ = t.u.SetWriteDeadline(time.Time{}) // halt sets one; fails only on a closed connection
	go func() { t.sent <- t.body() }()
	return nil
}

// appendHTTP1 appends a request's head without the empty line. No name and no value has a byte that
// could end a line: h2 refuses those.
func appendHTTP1(out []byte, h *h2.Head, host string, framed bool) []byte {
	out = append(append(append(out, h.Method...), ' '), h.Path...)
	out = append(out, " HTTP/1.1\r\n"...)
	out = appendField(out, "Host: ", host)
	cookies := ""
	for _, f := range h.Fields {
		switch f.Name {
		case "host", "te":
		case "cookie": // may come in pieces (RFC 9113 section 8.2.3)
			cookies += "; " + f.Value
		default:
			out = append(append(out, f.Name...), ": "...)
			out = append(append(out, f.Value...), "\r\n"...)
		}
	}
	if cookies != "" {
		out = appendField(out, "cookie: ", cookies[2:])
	}
	if framed {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	return out
}

// body sends the request's body as it comes.
func (t *translation) body() error {
	piece, out := make([]byte, bufferSize), make([]byte, 0, bufferSize+16)
	for {
		n, last, err := t.piece(piece)
		if err != nil {
			return err
		}
		out = append(out[:0], piece[:n]...)
		if t.framed {
			out = h1.AppendChunk(out[:0], piece[:n])
		}
		if last && t.framed {
			out = append(out, h1.LastChunk...)
		}
		if len(out) > 0 {
			n, err := t.u.Conn.Write(out)
			if t.u.sent += n; err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// piece waits for the next bytes of the body.
func (t *translation) piece(p []byte) (n int, last bool, err error) {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.plain != t.u || s.left() || s.expired {
			return 0, false, errGone
		}
		if s.replayable {
			s.absorb(nil)
		}
		if n = copy(p, s.replay[s.sent:]); n > 0 {
			s.sent += n
		} else if !s.replayable {
			n = s.down.Take(nil, p)
		}
		last = s.down.Ended() && s.sent == len(s.replay)
		if n > 0 || last {
			return n, last, nil
		}
		s.event.Wait()
	}
}

// head reads until the head of the final response is in b, parsed.
func (t *translation) head() error {
	x := &t.s.exchange
	limits := h1.Limits{Head: x.p.cfg.MaxHead}
	for scanned := 0; ; {
		n, err := h1.End(t.b.bytes(), scanned, limits)
		if err == nil && n > 0 {
			err = t.res.Parse(t.b.bytes()[:n], limits)
		}
		switch {
		case err != nil:
			return err
		case n > 0 && t.res.Status == 101:
			return &h1.Error{Text: "an upgrade that nobody asked for"}
		case n > 0 && t.res.Status >= 200:
			return nil
		case n > 0:
			_ = t.s.down.SendHead(nil, t.convert(t.b.bytes()[:n]), false) // a caller that is gone has its own event
			t.b.r += n
			scanned = 0
			continue
		}
		scanned = len(t.b.bytes())
		n, err = t.u.read(x, t.b.room(x.p.cfg.MaxHead+bufferSize), x.deadline)
		t.b.w += n
		if err != nil {
			return err
		}
	}
}

// convert makes a response's head one of HTTP/2.
func (t *translation) convert(head []byte) *h2.Head {
	h := &h2.Head{Status: t.res.Status, Length: t.res.Length, Fields: t.fields[:0]}
	for i := range t.res.Fields {
		f := &t.res.Fields[i]
		if f.Drop || f.Kind != h1.Other && f.Kind != h1.ContentLength {
			continue
		}
		name := strings.ToLower(string(f.Name.Of(head)))
		if strings.HasPrefix(name, internalPrefix) {
			continue
		}
		h.Fields = append(h.Fields, h2.Field{Name: name, Value: string(f.Value.Of(head))})
	}
	return h
}

// answer passes the response on, whose head is in b.
func (t *translation) answer() outcome {
	s, x := t.s, &t.s.exchange
	x.obs.Status = t.res.Status
	x.headAfter = time.Since(x.obs.Time) - x.last().Start
	head := t.b.bytes()[:t.res.Size]
	h := t.convert(head)
	body := t.res.Body(x.obs.Method == "HEAD")
	t.b.r += t.res.Size
	s.mu.Lock()
	s.begun, s.replayable = true, false
	stream := t.res.Length < 0 || t.res.Length > bodyTimeout
	if stream {
		s.arm(time.Time{})
	}
	err := s.down.SendHead(nil, h, body.Done())
	s.mu.Unlock()
	for err == nil && !body.Done() {
		err = t.more(&body, stream)
	}
	return t.over(&body, err)
}

// more passes on what is in b of the body, then reads more of it.
func (t *translation) more(body *h1.Body, stream bool) error {
	x := &t.s.exchange
	for len(t.b.bytes()) > 0 && !body.Done() {
		content, n, err := body.Next(t.b.bytes())
		if err != nil {
			return err
		}
		if err := t.send(content, false); err != nil {
			return err
		}
		t.b.r += n
		if n == 0 {
			break
		}
	}
	if body.Done() {
		return t.send(nil, true)
	}
	until := x.deadline
	if stream {
		until = time.Now().Add(x.route.idle)
	}
	n, err := t.u.read(x, t.b.room(bufferSize), until)
	t.b.w += n
	if n == 0 && err != nil && body.ToEnd() && endOfStream(err) {
		if err := t.send(nil, true); err != nil {
			return err
		}
	}
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// send waits until the caller takes p.
func (t *translation) send(p []byte, end bool) error {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 || end {
		n, err := s.down.SendData(nil, p, end)
		if err != nil {
			return errGone
		}
		s.obs.BytesOut += int64(n)
		if p = p[n:]; len(p) == 0 {
			return nil
		}
		s.event.Wait()
		if s.left() {
			return errGone
		}
		if s.expired {
			return errTimeout
		}
	}
	return nil
}

// over ends an attempt whose answer began. The connection is kept if both messages are whole.
func (t *translation) over(body *h1.Body, err error) outcome {
	if err == nil && body.Done() && !t.res.Close && len(t.b.bytes()) == 0 {
		select {
		case bad := <-t.sent:
			if bad == nil {
				t.u.pool.put(t.u)
				return outcome{}
			}
			t.sent <- bad
		default:
		}
	}
	whole := err == nil || body.ToEnd() && endOfStream(err)
	t.halt()
	t.close()
	switch {
	case whole:
		return outcome{}
	case errors.Is(err, errGone):
		return outcome{reason: fleet.ReasonCallerGone, begun: true}
	case errors.Is(err, errTimeout):
		return outcome{reason: fleet.ReasonTimeout, begun: true, final: timedOut(t.s.route.callee, t.s.route.idle)}
	}
	return outcome{reason: fleet.ReasonUpstreamReset, begun: true, detail: "broke off in the middle of its answer"}
}

// halt ends the sending of the body and waits for who does it.
func (t *translation) halt() {
	t.s.mu.Lock()
	t.s.plain = nil
	t.s.event.Broadcast()
	t.s.mu.Unlock()
	_ = t.u.SetWriteDeadline(longAgo)
	if t.began {
		<-t.sent
	}
}

func (t *translation) close() {
	abort(t.u.Conn)
	t.u.close()
}

// failed ends an attempt that brought no answer.
func (t *translation) failed(err error) outcome {
	t.halt()
	o := outcome{reason: fleet.ReasonUpstreamReset, stale: t.u.used, detail: "closed the connection without an answer"}
	o.unseen = t.b.w == 0 && t.u.unseen()
	t.close()
	var bad *h1.Error
	switch {
	case errors.Is(err, errGone):
		o.reason = fleet.ReasonCallerGone
	case errors.Is(err, errTimeout):
		o.reason = fleet.ReasonTimeout
	case errors.As(err, &bad):
		o.reason, o.detail = fleet.ReasonUpstreamMalformed, "answered with "+bad.Text
	}
	return o
}
