package proxy

import (
	"time"

	"github.com/shoalrun/shoal/wire/h1"
)

// serveHeld does the exchanges that are whole in the buffer, one after the other (pipelining).
func (s *session) serveHeld() next {
	for {
		if n := s.parse(); n != ready {
			return n
		}
		if !s.whole() {
			return slow
		}
		if !s.exchange() {
			return over
		}
	}
}

// parse reads the head of the next request, once all of it is there.
func (s *session) parse() next {
	if s.in == nil {
		return more
	}
	b := s.in.bytes()
	if s.scanned == 0 && len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		s.in.r += 2 // an empty line before a request is skipped (RFC 9112 section 2.2)
		b = b[2:]
	}
	if len(b) == 0 || len(b) == 1 && b[0] == '\r' {
		return more
	}
	if !s.served && b[0] == preface[0] {
		if n := s.speaksHTTP2(b); n != ready {
			return n
		}
	}
	limits := s.p.limits()
	n, err := h1.End(b, s.scanned, limits)
	if err == nil && n == 0 {
		err = h1.Begins(b)
	}
	if err == nil && n == 0 {
		s.partly(b)
		return more
	}
	s.scanned = 0
	if err == nil {
		s.head = b[:n]
		err = s.req.Parse(s.head, limits)
	}
	if err != nil {
		s.reject(err)
		return over
	}
	s.body = s.req.Body()
	s.body.Guard = guardedPrefix
	return s.hold(b[n:])
}

// limits are those of a head.
func (p *Proxy) limits() h1.Limits { return h1.Limits{Head: p.cfg.MaxHead, Fields: p.cfg.MaxFields} }

// partly notes how much of a head was looked at, and when it began.
func (s *session) partly(b []byte) {
	if s.scanned == 0 {
		s.since = time.Now()
	}
	s.scanned = len(b)
}

// hold takes what came of the body together with the head.
func (s *session) hold(rest []byte) next {
	n, err := s.body.Take(rest)
	if err != nil {
		s.reject(err)
		return over
	}
	s.first = rest[:n]
	s.taken = len(s.head) + n
	return ready
}

// whole reports whether the exchange needs nothing more from the connection.
func (s *session) whole() bool {
	return !s.inside || s.body.Done() && !s.req.Upgrade && s.req.Form != h1.Authority
}

// preface is how a client with prior knowledge of HTTP/2 begins (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func (s *session) speaksHTTP2(b []byte) next {
	n := min(len(b), len(preface))
	switch {
	case string(b[:n]) != preface[:n]:
		return ready
	case n == len(preface):
		return http2
	}
	return more
}
