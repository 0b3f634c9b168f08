package proxy

import (
	"errors"
	"fmt"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h1"
)

// relay passes the answer, whose head is in b, on to the caller.
func (s *session) relay(x *exchange, u *upstream, b *buffer) outcome {
	x.obs.Status = s.res.Status
	if s.res.Status == 101 {
		return s.relayUpgrade(x, u, b)
	}
	if s.pump != nil {
		x.replayable = false // its copy is the pump's, which goes on
	}
	if s.res.Status == 503 && x.unavailable(string(s.res.Get(b.bytes(), "retry-after"))) {
		s.abandon(x, u)
		return outcome{repeat: true}
	}
	head, rest := b.bytes()[:s.res.Size], b.bytes()[s.res.Size:]
	body := s.res.Body(x.obs.Method == "HEAD")
	n, err := body.Take(rest)
	if err != nil {
		return s.failed(x, u, b, err)
	}
	whole := body.Done()
	if whole && u.unasked(rest[n:]) {
		return s.failed(x, u, b, errUnasked)
	}
	s.keep = s.keep && !body.ToEnd() && !s.closing.Load()
	switch {
	case whole && s.pump != nil && !s.pump.read.Load():
		s.keep = false // answered early: the rest of the request is not wanted
		s.abandon(x, u)
	case whole:
		s.giveBack(x, u, n < len(rest))
	}
	s.begun = true
	if err := s.answer(x, b, head, rest[:n]); err != nil {
		s.keep = false
		if !whole {
			s.abandon(x, u)
		}
		return outcome{reason: fleet.ReasonCallerGone, begun: true}
	}
	if whole {
		return outcome{}
	}
	x.headAfter = time.Since(x.obs.Time) - x.last().Start
	if s.res.Length < 0 || s.res.Length > bodyTimeout {
		x.rest()
	}
	return s.stream(x, u, b, &body)
}

// answer writes the head of the response and what came of its body in one piece: as they lie in the
// buffer, where nothing has to be changed.
func (s *session) answer(x *exchange, b *buffer, head, part []byte) error {
	strip := s.hideInternal(head)
	if head[7] == '0' {
		head[7] = '1' // a proxy speaks its own version (RFC 9110 section 2.5)
	}
	if x.digest != nil {
		x.digest.http1(&s.res, head, x.obs.Method == "HEAD")
		x.digest.raw(part)
	}
	n := len(head) + len(part)
	x.obs.BytesOut += int64(n)
	tell := s.from.tellsID && s.res.Get(head, "x-request-id") == nil
	if s.keep && s.req.Minor == 1 && !strip && !tell && s.res.Intact() {
		return s.write(b.b[b.r : b.r+n])
	}
	spare := getBuffer()
	defer putBuffer(spare)
	out := append(spare.b[:0], s.res.Line.Of(head)...)
	out = append(out, '\r', '\n')
	out = s.res.AppendFields(out, head)
	if tell {
		out = appendField(out, requestIDField, x.obs.RequestID)
	}
	if !s.keep {
		out = append(out, "Connection: close\r\n"...)
	} else if s.req.Minor == 0 {
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	out = append(out, '\r', '\n')
	if len(out)+len(part) <= len(spare.b) {
		return s.write(append(out, part...))
	}
	if err := s.write(out); err != nil {
		return err
	}
	return s.write(part)
}

// hideInternal marks fields that only Shoal may set: an application must not forge a refusal.
func (s *session) hideInternal(head []byte) (found bool) {
	for i := range s.res.Fields {
		f := &s.res.Fields[i]
		if c := head[f.Name.Start]; (c == 'S' || c == 's') && h1.HasPrefixFold(f.Name.Of(head), internalPrefix) {
			f.Drop, found = true, true
		}
	}
	return found
}

// stream relays the rest of a body as it comes.
func (s *session) stream(x *exchange, u *upstream, b *buffer, body *h1.Body) outcome {
	if err := s.splice(x, u, body); err != nil {
		return s.broken(x, u, err)
	}
	if body.Done() {
		s.giveBack(x, u, pending(u.raw))
		return outcome{}
	}
	b.r = b.w // all that was in it is with the caller
	if body.Left() > largeSize {
		b.enlarge()
	}
	p := b.b
	for !body.Done() {
		n, err := u.read(x, p, s.until(x))
		k, bad := body.Take(p[:n])
		x.obs.BytesOut += int64(k)
		if x.digest != nil {
			x.digest.raw(p[:k])
		}
		if k > 0 && s.write(p[:k]) != nil {
			err = errGone
		}
		if bad == nil && err != nil && body.ToEnd() && endOfStream(err) {
			break
		}
		if bad != nil || err != nil {
			return s.broken(x, u, err)
		}
		if body.Done() {
			s.giveBack(x, u, k < n)
			return outcome{}
		}
	}
	s.abandon(x, u)
	return outcome{}
}

// until is the deadline of the next read of a body.
func (s *session) until(x *exchange) time.Time {
	if s.res.Length >= 0 && s.res.Length <= bodyTimeout {
		return x.deadline
	}
	return time.Now().Add(x.route.idle)
}

// breakOff has the connection end by a reset: the caller must not take what it has of an answer for the whole.
func (s *session) breakOff() {
	s.keep, s.broke = false, true
	abort(s.conn)
}

// broken ends an exchange whose answer stopped in its middle.
func (s *session) broken(x *exchange, u *upstream, err error) outcome {
	s.breakOff()
	s.abandon(x, u)
	o := outcome{reason: fleet.ReasonUpstreamReset, begun: true, detail: "broke off in the middle of its answer"}
	switch {
	case errors.Is(err, errGone):
		o.reason = fleet.ReasonCallerGone
	case errors.Is(err, errTimeout) && s.res.Length >= 0 && s.res.Length <= bodyTimeout:
		o.reason = fleet.ReasonTimeout
	case errors.Is(err, errTimeout):
		o.final = &refusal{status: 504, reason: fleet.ReasonTimeout, detail: fmt.Sprintf("%s was silent for %v in the middle of its answer.", x.route.callee, x.route.idle)}
		o.reason = fleet.ReasonTimeout
	}
	return o
}

// giveBack ends the use of u after a whole answer. extra says that it sent more than that.
func (s *session) giveBack(x *exchange, u *upstream, extra bool) {
	s.waiting.Store(nil)
	if s.pump != nil && !s.finishPump(x, u) || s.res.Close || extra {
		u.close()
		return
	}
	u.pool.put(u)
}

// abandon closes u.
func (s *session) abandon(x *exchange, u *upstream) {
	s.waiting.Store(nil)
	if s.pump != nil {
		s.stopPump(x, u)
	}
	u.close()
}
