package proxy

import (
	"time"

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
			out = appendLast(out, t.s.down.Trailers())
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
