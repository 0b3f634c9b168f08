package h2

import (
	"slices"
	"sync"
)

// SendHead sends a response's head, final or interim, or trailers, which have end set. It never
// waits: heads are not subject to flow control.
func (s *Stream) SendHead(b *Batch, h *Head, end bool) error {
	c := s.c
	c.mu.Lock()
	if err := s.sendErrLocked(); err != nil {
		c.mu.Unlock()
		return err
	}
	c.appendHeadLocked(s.id, h, end)
	if end {
		s.endLocalLocked()
	}
	b.mark(c)
	c.mu.Unlock()
	b.done(c)
	return nil
}

func (s *Stream) sendErrLocked() error {
	if s.err != nil {
		return s.err
	}
	if s.c.writer.broken { // nobody takes from the output any more
		return lost(s.c.err)
	}
	if s.closed || s.localEnd {
		return &StreamError{Code: StreamClosed, Reason: "the stream's sending side has ended"}
	}
	return nil
}

// appendHeadLocked writes a header block straight into the output.
func (c *Conn) appendHeadLocked(id uint32, h *Head, end bool) {
	w := &c.writer
	flags := byte(flagEndHeaders)
	if end {
		flags |= flagEndStream
	}
	at := len(w.out)
	w.out = appendFrame(w.out, 0, frameHeaders, flags, id)
	w.out = h.append(w.out, c.enc)
	n := len(w.out) - at - frameHead
	if n > frameMax {
		w.splitLocked(at, flags, id)
		return
	}
	w.out[at], w.out[at+1], w.out[at+2] = byte(n>>16), byte(n>>8), byte(n)
}

// splitLocked cuts the header block that begins at a place in the output into frames.
func (w *writer) splitLocked(at int, flags byte, id uint32) {
	block := slices.Clone(w.out[at+frameHead:])
	w.out = append(appendFrame(w.out[:at], frameMax, frameHeaders, flags&^flagEndHeaders, id), block[:frameMax]...)
	for block = block[frameMax:]; len(block) > frameMax; block = block[frameMax:] {
		w.out = append(appendFrame(w.out, frameMax, frameContinuation, 0, id), block[:frameMax]...)
	}
	w.out = append(appendFrame(w.out, len(block), frameContinuation, flagEndHeaders, id), block...)
}

// SendData sends as much of p as the windows and the output have room for, and returns how much that
// was: the caller keeps the rest until a [Writable] event. end, the end of the sending side, takes
// effect once all of p is sent. It never waits.
func (s *Stream) SendData(b *Batch, p []byte, end bool) (int, error) {
	c := s.c
	c.mu.Lock()
	n, err := s.sendLocked(p, end)
	if n > 0 || end {
		b.mark(c)
	}
	c.mu.Unlock()
	b.done(c)
	return n, err
}

func (s *Stream) sendLocked(p []byte, end bool) (n int, err error) {
	if err := s.sendErrLocked(); err != nil {
		return 0, err
	}
	c := s.c
	for n < len(p) {
		k := int(min(int64(len(p)-n), s.sendWindow, c.sendWindow, frameMax, int64(c.roomLocked(s))))
		if k <= 0 {
			s.starveLocked()
			return n, nil
		}
		flags := byte(0)
		if end && n+k == len(p) {
			flags = flagEndStream
		}
		c.writer.out = append(appendFrame(c.writer.out, k, frameData, flags, s.id), p[n:n+k]...)
		s.sendWindow -= int64(k)
		c.sendWindow -= int64(k)
		s.credit = max(s.credit-k, 0)
		c.earnLocked(earnedByData)
		n += k
	}
	if end && len(p) == 0 {
		c.writer.out = appendFrame(c.writer.out, 0, frameData, flagEndStream, s.id)
	}
	if end {
		s.endLocalLocked()
	}
	return n, nil
}

// Finish sends the rest of a short answer, and its end. What the windows have no room for is sent when they
// have, also after [Stream.Release].
func (s *Stream) Finish(b *Batch, p []byte) {
	c := s.c
	c.mu.Lock()
	s.tail = p
	s.finishLocked(b)
	c.mu.Unlock()
	b.done(c)
}

func (s *Stream) finishLocked(b *Batch) {
	n, err := s.sendLocked(s.tail, true)
	b.mark(s.c)
	if s.tail = s.tail[n:]; len(s.tail) > 0 && err == nil {
		return
	}
	s.tail = nil
	if s.released && !s.closed { // what of the request is still to come is not wanted (RFC 9113 section 8.1)
		s.resetLocked(b, &StreamError{Code: NoError})
	}
}

func (s *Stream) starveLocked() {
	if s.starved {
		return
	}
	s.starved, s.waits = true, 0
	if s.sendWindow > 0 {
		s.c.turns.addLocked(s)
	}
}

// fedLocked: the stream waits no longer.
func (s *Stream) fedLocked() {
	if !s.starved {
		return
	}
	s.starved = false
	s.c.turns.removeLocked(s)
}

// Keep stores what came and cannot go on yet. data is from a Data event, as is end.
func (s *Stream) Keep(data []byte, end bool) {
	s.keepRoom(len(data))
	s.kept = append(s.kept, data...)
	s.keptEnd = s.keptEnd || end
}

// Buffered returns how many bytes are kept.
func (s *Stream) Buffered() int { return len(s.kept) - s.keptAt }

// Take moves kept bytes to p, returns window for them, and says how many they were. [Stream.Ended] tells
// whether they were the last.
func (s *Stream) Take(b *Batch, p []byte) int {
	n := copy(p, s.kept[s.keptAt:])
	s.dropKept(n)
	s.Consumed(b, n)
	return n
}

// Forward sends what was kept, then data, on to another stream, as far as that one takes it, and keeps
// the rest. After the last byte the end goes too, with the trailers that came. Window is returned
// for what went. It reports whether all went, the end included; call it again, without data, when to
// is writable.
func (s *Stream) Forward(b *Batch, to *Stream, data []byte, end bool) bool {
	if s.keptAt < len(s.kept) {
		s.Keep(data, end)
		data = nil
	}
	s.keptEnd = s.keptEnd || end
	p := data
	if data == nil {
		p = s.kept[s.keptAt:]
	}
	sent := s.forward(b, to, p)
	if data == nil {
		s.dropKept(sent)
	} else if sent < len(p) {
		s.Keep(p[sent:], false)
	}
	s.Consumed(b, sent)
	return s.passed
}

// forward sends p, and the end behind it where it is due, and returns how much of p is dealt with.
func (s *Stream) forward(b *Batch, to *Stream, p []byte) int {
	withTrailers := s.keptEnd && s.Trailers() != nil
	end := s.keptEnd && !withTrailers && !s.passed
	sent := 0
	if len(p) > 0 || end {
		n, err := to.SendData(b, p, end)
		if err != nil {
			n = len(p) // nobody wants it any more; the other stream's own event says why
		}
		sent = n
	}
	if sent < len(p) || !s.keptEnd || s.passed {
		return sent
	}
	s.passed = true
	if withTrailers {
		_ = to.SendHead(b, &s.trailers, true)
	}
	return sent
}

// largeKept holds what a stream of a large window keeps. Such buffers are shared: growing one for each stream
// costs more than the bytes that it is for.
const largeKept = 256 << 10

var keptBuffers = sync.Pool{New: func() any { return new([largeKept]byte) }}

// keepRoom sees to it that n bytes more can be kept.
func (s *Stream) keepRoom(n int) {
	if len(s.kept)+n <= cap(s.kept) {
		return
	}
	rest := s.kept[s.keptAt:]
	need := len(rest) + n
	if s.c.cfg.StreamWindow >= largeKept && need > max(cap(s.kept), keepStream) && need <= largeKept {
		s.kept = keptBuffers.Get().(*[largeKept]byte)[:0]
	}
	s.kept, s.keptAt = append(s.kept[:0], rest...), 0
}

func (s *Stream) dropKept(n int) {
	if s.keptAt += n; s.keptAt == len(s.kept) {
		s.freeKept()
	}
}

// freeKept empties the buffer, and gives a large one back.
func (s *Stream) freeKept() {
	if cap(s.kept) == largeKept {
		keptBuffers.Put((*[largeKept]byte)(s.kept[:largeKept]))
		s.kept = nil
	}
	s.kept, s.keptAt = s.kept[:0], 0
}

// Consumed returns window for n bytes of the body, once it is worth a frame.
func (s *Stream) Consumed(b *Batch, n int) {
	if n == 0 {
		return
	}
	c := s.c
	c.mu.Lock()
	s.consumedLocked(b, n)
	c.mu.Unlock()
	b.done(c)
}

func (s *Stream) consumedLocked(b *Batch, n int) {
	s.unacked += n
	if s.closed || s.remoteEnd || s.unacked < int(s.c.cfg.StreamWindow/2) {
		return
	}
	s.c.writer.out = appendWindowUpdate(s.c.writer.out, s.id, s.unacked)
	s.recvWindow += int64(s.unacked)
	s.unacked = 0
	b.mark(s.c)
}
