package proxy

import (
	"strconv"
	"sync"
	"time"

	"github.com/shoalrun/shoal/wire/h1"
	"github.com/shoalrun/shoal/wire/h2"
)

// translation forwards an HTTP/2 request to an application that speaks HTTP/1.1. The goroutine that walks
// writes the request and reads the answer; where the body is still on its way, another one sends it. A
// translation is used again and again, with its storage.
type translation struct {
	s      *http2Stream
	u      *upstream
	b      *buffer
	res    h1.Response
	framed bool       // the body is chunked
	whole  bool       // all of the request went with its head
	began  bool       // somebody sends the body, and tells on sent how that ended
	sent   chan error // has room for one

	out    []byte
	head2  h2.Head
	fields []h2.Field
	words  words
}

var translations = sync.Pool{New: func() any { return &translation{sent: make(chan error, 1)} }}

func (t *translation) free() {
	putBuffer(t.b)
	t.s, t.u, t.b = nil, nil, nil
	t.framed, t.whole, t.began = false, false, false
	select {
	case <-t.sent:
	default:
	}
	translations.Put(t)
}

// translate makes an attempt in HTTP/1.1.
func (s *http2Stream) translate() outcome {
	u, o := s.connect()
	if u == nil {
		return o
	}
	t := translations.Get().(*translation)
	t.s, t.u, t.b = s, u, getBuffer()
	defer t.free()
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

// request writes the request and, where all of it is here, waits for the first bytes of the answer. A body
// that is not is sent beside the answer.
func (t *translation) request() error {
	s := t.s
	if s.left() {
		return errGone
	}
	body := t.body()
	h := s.compose()
	known := s.down.Head().Length >= 0
	t.framed = !t.whole && (!known || s.down.Head().Get("trailer") != "")
	t.out = appendHTTP1(t.out[:0], h, s.authority, t.framed)
	if t.whole && !known && (len(body) > 0 || !s.idempotent) {
		t.out = append(strconv.AppendInt(append(t.out, "Content-Length: "...), int64(len(body)), 10), '\r', '\n')
	}
	t.out = append(t.out, '\r', '\n')
	if t.whole {
		t.out = append(t.out, body...)
		n, err := t.u.roundTrip(&s.exchange, t.out, t.b.b)
		t.b.w = n
		return err
	}
	if err := t.u.write(&s.exchange, t.out); err != nil {
		return err
	}
	t.began = true
	s.down.Conn().FlushSoon()             // the window that body returned
	_ = t.u.SetWriteDeadline(time.Time{}) // halt sets one; fails only on a closed connection
	go func() { t.sent <- t.send() }()
	return nil
}

// body returns the request's body, and sets whole, if all of it is here; it may be empty.
func (t *translation) body() []byte {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replayable {
		s.absorb(later)
	}
	t.whole = s.down.Ended() && (s.replayable || len(s.replay) == 0) && s.down.Trailers() == nil
	if !t.whole {
		return nil
	}
	s.sent = len(s.replay)
	return s.replay
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
		case "content-length": // which a framed body, for its trailers say, must not have
			if !framed {
				out = appendField(out, "content-length: ", f.Value)
			}
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

// send sends the request's body as it comes.
func (t *translation) send() error {
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
