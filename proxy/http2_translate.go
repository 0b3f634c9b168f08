package proxy

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/wire/h1"
	"github.com/shoalrun/shoal/wire/h2"
)

// translation forwards an HTTP/2 request to an application that speaks HTTP/1.1. The goroutine that walks
// writes the request and reads the answer; where the body is still on its way, another one sends it. A
// translation is used again and again, with its storage.
type translation struct {
	s       *http2Stream
	x       *exchange // that of s; a copy, as long as another attempt may take over
	u       *upstream
	b       *buffer
	res     h1.Response
	framed  bool        // the body is chunked
	whole   bool        // all of the request went with its head; guarded by s.mu
	began   bool        // somebody sends the body, and tells on sent how that ended
	sent    chan error  // has room for one
	writing atomic.Bool // the application is to take a piece of the body

	gone    atomic.Bool // what the copy's exchange.gone points to
	decided bool        // no other attempt will take over; guarded by s.mu
	lost    bool        // another attempt has; guarded by s.mu

	out    []byte
	head2  h2.Head
	fields []h2.Field
	names  http2Names
}

var translations = sync.Pool{New: func() any { return &translation{sent: make(chan error, 1)} }}

func (t *translation) free() {
	putBuffer(t.b)
	t.s, t.x, t.u, t.b = nil, nil, nil, nil
	t.framed, t.whole, t.began, t.decided, t.lost = false, false, false, false, false
	t.gone.Store(false)
	select {
	case <-t.sent:
	default:
	}
	translations.Put(t)
}

// newTranslation has u for an attempt of s, in words of x.
func newTranslation(s *http2Stream, u *upstream, x *exchange) *translation {
	t := translations.Get().(*translation)
	t.s, t.x, t.u, t.b = s, x, u, getBuffer()
	if x != &s.exchange {
		x.gone = &t.gone
	}
	return t
}

// translate makes an attempt in HTTP/1.1. carried says that another one took over.
func (s *http2Stream) translate() (o outcome, carried bool) {
	u, o := s.connect()
	if u == nil {
		return o, false
	}
	x := &s.exchange
	if x.hedges() {
		x = x.copy()
	}
	t := newTranslation(s, u, x)
	s.mu.Lock()
	s.phase, s.plain, s.sent = translating, t, 0
	s.bodyMoved()
	s.arm(s.deadline)
	s.mu.Unlock()
	return t.run()
}

// run sends the request, waits for the answer, and passes it on if no other attempt was faster.
func (t *translation) run() (o outcome, carried bool) {
	defer t.free()
	err := t.request()
	if err == nil {
		err = t.head()
	}
	if !t.decide(err) {
		t.close()
		return outcome{}, true
	}
	s := t.s
	defer func() {
		s.mu.Lock()
		s.phase, s.plain, s.until = waiting, nil, time.Time{}
		s.mu.Unlock()
	}()
	if err != nil {
		return t.failed(err), false
	}
	return t.answer(), false
}

// request writes the request and, where all of it is here, waits for the first bytes of the answer. A body
// that is not is sent beside the answer.
func (t *translation) request() error {
	if err := t.compose(); err != nil {
		return err
	}
	if t.whole {
		n, err := t.u.roundTrip(t.x, t.out, t.b.b)
		t.b.w = n
		return err
	}
	if err := t.u.write(t.x, t.out); err != nil {
		return err
	}
	t.began = true
	t.s.down.Conn().FlushSoon()           // the window that body returned
	_ = t.u.SetWriteDeadline(time.Time{}) // halt sets one; fails only on a closed connection
	go func() { t.sent <- t.send() }()
	return nil
}

// compose puts the request's head into out and, if all of it is here, the body. From here on the exchange may be hedged.
func (t *translation) compose() error {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.lost || s.left() {
		return errGone
	}
	body := t.bodyLocked()
	known := s.down.Head().Length >= 0
	t.framed = !t.whole && (!known || s.down.Head().Get("trailer") != "")
	t.out = appendHTTP1(t.out[:0], s.compose(), s.authority, t.framed)
	if t.whole && !known && (len(body) > 0 || !s.idempotent) {
		t.out = append(strconv.AppendInt(append(t.out, "Content-Length: "...), int64(len(body)), 10), '\r', '\n')
	}
	t.out = append(append(t.out, '\r', '\n'), body...)
	if t.whole {
		s.mayHedge()
	}
	return nil
}

// bodyLocked returns the request's body, and sets whole, if all of it is here; it may be empty.
func (t *translation) bodyLocked() []byte {
	s := t.s
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
			t.writing.Store(true)
			n, err := t.u.Conn.Write(out)
			t.writing.Store(false)
			if t.u.sent += n; err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// awaitsBody reports whether the request's body is what is missing, and not a reader for what came of it.
func (t *translation) awaitsBody() bool {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return t.began && !t.writing.Load() && !t.s.down.Ended()
}

// piece waits for the next bytes of the body.
func (t *translation) piece(p []byte) (n int, last bool, err error) {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.plain != t || s.left() || s.expired {
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
