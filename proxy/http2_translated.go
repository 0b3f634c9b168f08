package proxy

import (
	"errors"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h1"
	"github.com/shoalrun/shoal/wire/h2"
)

// head reads until the head of the final response is in b, parsed.
func (t *translation) head() error {
	x := t.x
	limits := x.p.limits()
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
			if err := x.interim(); err != nil {
				return err
			}
			t.interim(t.b.bytes()[:n])
			t.b.r += n
			scanned = 0
			continue
		}
		scanned = len(t.b.bytes())
		if err := t.read(); err != nil {
			return err
		}
	}
}

// read reads more of the answer's head. While the request's body is on its way, the caller may not be silent for too
// long.
func (t *translation) read() error {
	for {
		until := t.due()
		n, err := t.u.read(t.x, t.b.room(t.x.p.cfg.MaxHead+bufferSize), until)
		t.b.w += n
		if !errors.Is(err, errTimeout) || until.Equal(t.x.deadline) {
			return err
		}
		if t.silent() {
			return errSilent
		}
	}
}

// due is when there must be an answer, or more of the request.
func (t *translation) due() time.Time {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if !t.began {
		return t.x.deadline
	}
	return t.s.due()
}

// silent reports whether the caller was silent in its body for too long. One whose last piece is yet to be taken was not.
func (t *translation) silent() bool {
	awaited := t.awaitsBody()
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	lapsed := !t.s.lapse.IsZero() && !time.Now().Before(t.s.lapse)
	if lapsed && !awaited {
		t.s.bodyMoved()
	}
	return lapsed && awaited
}

// interim passes 100 (Continue), 103 and their like on.
func (t *translation) interim(head []byte) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if !t.lost {
		_ = t.s.down.SendHead(later, t.convert(head), false) // a caller that is gone has its own event
		t.s.down.Conn().FlushSoon()
	}
}

// convert makes a response's head one of HTTP/2.
func (t *translation) convert(head []byte) *h2.Head {
	t.names.reset()
	t.fields = t.names.response(t.fields[:0], &t.res, head)
	t.head2 = h2.Head{Status: t.res.Status, Length: t.res.Length, Fields: t.fields}
	return &t.head2
}

// response appends the fields of a response that go on, for HTTP/2. They are valid while head is.
func (n *http2Names) response(out []h2.Field, res *h1.Response, head []byte) []h2.Field {
	for i := range res.Fields {
		f := &res.Fields[i]
		if f.Drop || f.Kind != h1.Other && f.Kind != h1.ContentLength {
			continue
		}
		if name := n.name(f.Name.Of(head)); !strings.HasPrefix(name, internalPrefix) {
			out = append(out, h2.Field{Name: name, Value: view(f.Value.Of(head))})
		}
	}
	return out
}

// answer passes the response on, whose head is in b.
func (t *translation) answer() outcome {
	s, x := t.s, &t.s.exchange
	x.obs.Status = t.res.Status
	x.headAfter = time.Since(x.obs.Time) - x.last().Start
	head := t.b.bytes()[:t.res.Size]
	h := t.convert(head)
	if s.declined(h, false) {
		t.halt()
		t.close()
		return outcome{repeat: true}
	}
	body := t.res.Body(x.obs.Method == "HEAD")
	if err := t.u.plausible(body, t.b.bytes()[t.res.Size:]); err != nil {
		return t.failed(err)
	}
	body.Keep = true
	if x.digest != nil {
		x.digest.http2(h)
	}
	t.b.r += t.res.Size
	s.mu.Lock()
	s.begun, s.replayable = true, false
	stream := t.res.Length < 0 || t.res.Length > bodyTimeout
	if stream {
		x.rest()
		s.arm(time.Time{})
	}
	err := s.down.SendHead(later, s.told(h), body.Done()) // what is not flushed before is with the stream's release
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
		if x.digest != nil {
			x.digest.add(content)
		}
		if err := t.pass(content, body); err != nil {
			return err
		}
		t.b.r += n
		if n == 0 {
			break
		}
	}
	if body.Done() {
		return nil
	}
	t.s.down.Conn().FlushSoon()
	until := x.deadline
	if stream {
		until = time.Now().Add(x.route.idle)
	}
	if body.Left() > largeSize {
		t.b.enlarge()
	}
	n, err := t.u.read(x, t.b.room(bufferSize), until)
	t.b.w += n
	if n == 0 && err != nil && body.ToEnd() && endOfStream(err) {
		if err := t.give(nil, true); err != nil {
			return err
		}
	}
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// give waits until the caller takes p.
func (t *translation) give(p []byte, end bool) error {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 || end {
		n, err := s.down.SendData(later, p, end)
		if err != nil {
			return errGone
		}
		s.obs.BytesOut += int64(n)
		if p = p[n:]; len(p) == 0 {
			return nil
		}
		s.down.Conn().FlushSoon()
		s.event.Wait()
		if s.left() {
			return errGone
		}
		if s.expired {
			s.deaf.Store(true)
			return errGone
		}
	}
	return nil
}

// pass passes a piece of the body on and, if it was the last, the end, with trailers where there are any.
func (t *translation) pass(content []byte, body *h1.Body) error {
	if !body.Done() {
		return t.give(content, false)
	}
	trailers := trailersOf(body)
	if err := t.give(content, trailers == nil); err != nil || trailers == nil {
		return err
	}
	if t.s.down.SendHead(later, trailers, true) != nil {
		return errGone
	}
	return nil
}

// over ends an attempt whose answer began. The connection is kept if both messages are whole.
func (t *translation) over(body *h1.Body, err error) outcome {
	if err == nil && body.Done() && !t.res.Close && len(t.b.bytes()) == 0 {
		if t.whole {
			t.u.pool.put(t.u)
			return outcome{}
		}
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
	slow := t.awaitsBody()
	t.halt()
	o := t.failure(err)
	t.close()
	switch {
	case errors.Is(err, errSilent):
		return t.s.silentBody()
	case slow && errors.Is(err, errTimeout):
		return t.s.slowBody()
	}
	return t.s.taught(o, t.u, t.b)
}

// failure is how an attempt ended that brought no answer.
func (t *translation) failure(err error) outcome {
	o := outcome{reason: fleet.ReasonUpstreamReset, stale: t.u.used, detail: "closed the connection without an answer"}
	o.unseen = t.b.w == 0 && t.u.unseen()
	var bad *h1.Error
	switch {
	case errors.Is(err, errGone):
		o.reason = fleet.ReasonCallerGone
	case errors.Is(err, errTimeout):
		o.reason = fleet.ReasonTimeout
	case errors.Is(err, errUnasked):
		o.detail = unasked
	case errors.As(err, &bad):
		o.reason, o.detail = fleet.ReasonUpstreamMalformed, "answered with "+bad.Text
	}
	return o
}
