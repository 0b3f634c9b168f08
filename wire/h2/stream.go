package h2

import "github.com/shoalrun/shoal/wire/hpack"

// Kind is the kind of an [Event].
type Kind uint8

// The kinds of events, in the order in which a stream has them.
const (
	Headers  Kind = iota // a response's head, final or interim (status 1xx), is in [Stream.Head]
	Data                 // Event.Data came
	Trailers             // [Stream.Trailers] are there, the stream's other side has ended
	Writable             // [Stream.SendData], which took less than it was given, takes more
	Closed               // Event.Err ended the stream; nothing comes after it
)

// Event is what happened to a stream.
type Event struct {
	Kind  Kind
	Batch *Batch // of the goroutine that delivers
	Data  []byte // valid during Receive
	End   bool   // nothing of the body comes after this
	Err   *StreamError
}

// Receiver gets the events of streams, from the goroutine that reads their connection and at times
// from one that writes to it, in order for each kind; it must not block. A stream that was released
// may still have one event on its way: tell streams apart by their pointers.
type Receiver interface {
	Receive(s *Stream, e Event)
}

// Stream is one request and its response.
type Stream struct {
	c  *Conn
	id uint32

	receiver Receiver // set before events come, taken away under the connection's mutex

	// Of the receiving side, which has one user at a time (see the package comment).
	head        Head
	trailers    Head
	list        hpack.List // what head is made of
	trailerList hpack.List
	kept        []byte // arrived, not consumed
	keptAt      int    // what of it was consumed
	keptEnd     bool   // what is in kept is the last
	passed      bool   // the end was forwarded

	// The connection's mutex guards what follows.
	headSeen    bool
	hasTrailers bool
	remoteEnd   bool
	localEnd    bool
	closed      bool
	released    bool
	starved     bool   // has bytes to send that wait for the stream's window, or for its turn
	credit      int    // what its turn has left for it
	source      string // for whom it is
	waits       int    // ticks for which it is
	noBody      bool   // the response to HEAD has none, whatever its Content-Length
	pins        int
	opened      uint64 // writer.taken when the request was put into the output
	sendWindow  int64
	recvWindow  int64
	unacked     int    // consumed, not returned as window
	tail        []byte // what Finish has yet to send
	length      int64
	body        int64
	err         *StreamError
	readers     chan struct{} // wakes the blocking methods
	writers     chan struct{}
}

// newStreamLocked takes a stream that was used before where there is one.
func (c *Conn) newStreamLocked(id uint32) *Stream {
	s := (*Stream)(nil)
	if n := len(c.free); n > 0 {
		s = c.free[n-1]
		c.free = c.free[:n-1]
		s.reuse()
	} else {
		s = &Stream{c: c}
	}
	s.id = id
	s.sendWindow = c.peer.window
	s.recvWindow = int64(c.cfg.StreamWindow)
	s.length = -1
	c.streams[id] = s
	c.active++
	c.earnLocked(earnedByStream)
	return s
}

// keepStream is the largest receive buffer that a stream keeps when it is used again.
const keepStream = 16 << 10

func (s *Stream) reuse() {
	s.list.Reset()
	s.trailerList.Reset()
	if s.freeKept(); cap(s.kept) > keepStream {
		s.kept = nil
	}
	*s = Stream{
		c: s.c, list: s.list, trailerList: s.trailerList, kept: s.kept[:0],
	}
}

// Open sends a request; end says that it has no body. With a Receiver its events go there, else the
// blocking methods serve. It fails with [ErrBusy], [ErrDraining] or the connection's end.
func (c *Conn) Open(b *Batch, h *Head, end bool, r Receiver) (*Stream, error) {
	c.mu.Lock()
	if err := c.openErrLocked(); err != nil {
		c.mu.Unlock()
		return nil, err
	}
	s := c.newStreamLocked(c.nextID)
	c.nextID += 2
	s.receiver = r
	s.noBody = h.Method == "HEAD"
	s.localEnd = end
	s.opened = c.writer.taken
	c.appendHeadLocked(s.id, h, end)
	b.mark(c)
	c.mu.Unlock()
	b.done(c)
	return s, nil
}

// Conn returns the stream's connection.
func (s *Stream) Conn() *Conn { return s.c }

// ID returns the stream's number.
func (s *Stream) ID() uint32 { return s.id }

// SetReceiver has the stream's events delivered to r. It is for the handler of a server, before it
// returns; a client gives its Receiver to [Conn.Open].
func (s *Stream) SetReceiver(r Receiver) {
	s.c.mu.Lock()
	s.receiver = r
	s.c.mu.Unlock()
}

// Head returns the request's head, at a server, and after its event the response's, at a client.
func (s *Stream) Head() *Head { return &s.head }

// Trailers returns the fields that came after the body, or nil.
func (s *Stream) Trailers() *Head {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !s.hasTrailers {
		return nil
	}
	return &s.trailers
}

// Ended reports whether the head that came was all: no body follows.
func (s *Stream) Ended() bool { return s.keptEnd && s.keptAt == len(s.kept) }

// wakeLocked lets the blocking methods look again.
func (s *Stream) wakeLocked() {
	for _, ch := range [...]chan struct{}{s.readers, s.writers} {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// deliver tells the stream's user. The caller does not hold the connection's mutex.
func (s *Stream) deliver(e Event) {
	s.c.mu.Lock()
	r := s.receiver
	switch {
	case s.tail != nil && e.Kind == Writable:
		s.finishLocked(e.Batch)
		s.c.mu.Unlock()
		e.Batch.done(s.c)
		return
	case r == nil:
		s.wakeLocked()
	}
	s.c.mu.Unlock()
	if r != nil {
		r.Receive(s, e)
	}
}

// takeDataLocked accounts for a DATA frame, or says what is wrong with it.
func (s *Stream) takeDataLocked(n, wire int, end bool) (Code, string) {
	switch {
	case s.remoteEnd:
		return StreamClosed, "DATA after the end of the stream"
	case !s.headSeen:
		return ProtocolError, "DATA before the response's head"
	case int64(wire) > s.recvWindow:
		return FlowControlError, "more DATA than the stream's window (StreamWindow)"
	}
	s.recvWindow -= int64(wire)
	s.unacked += wire - n
	s.body += int64(n)
	if s.length >= 0 && (s.body > s.length || end && s.body < s.length) {
		return ProtocolError, "content-length is not the length of the body"
	}
	if end {
		s.endRemoteLocked()
	}
	return NoError, ""
}

func (s *Stream) endRemoteLocked() {
	s.remoteEnd = true
	if s.localEnd {
		s.closeLocked(false)
	}
}

func (s *Stream) endLocalLocked() {
	s.localEnd = true
	if s.remoteEnd {
		s.closeLocked(false)
	}
}

// closeLocked takes the stream off its connection; reset says that we ended it early.
func (s *Stream) closeLocked(reset bool) {
	if s.closed {
		return
	}
	s.closed = true
	c := s.c
	delete(c.streams, s.id)
	c.active--
	c.rememberLocked(s.id, reset)
	s.fedLocked()
	if s.released {
		c.retired = append(c.retired, s)
	}
	c.drainedLocked()
}

// Reset ends the stream with an error code. The stream's Receiver hears nothing of it.
func (s *Stream) Reset(b *Batch, code Code) {
	c := s.c
	c.mu.Lock()
	s.resetLocked(b, &StreamError{Code: code, Reason: "ended here"})
	c.mu.Unlock()
	b.done(c)
}

// Err returns what ended the stream before both of its sides were done; nil where nothing did. Any goroutine
// may ask, until Release.
func (s *Stream) Err() *StreamError {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.err
}

func (s *Stream) resetLocked(b *Batch, err *StreamError) bool {
	if s.closed {
		return false
	}
	s.err = err
	s.c.writer.out = appendReset(s.c.writer.out, s.id, err.Code)
	s.closeLocked(true)
	s.wakeLocked()
	b.mark(s.c)
	return true
}

// fail resets a stream whose peer broke the protocol, and tells its user; on the reading goroutine.
func (s *Stream) fail(b *Batch, code Code, why string) {
	err := &StreamError{Code: code, Reason: why}
	s.c.mu.Lock()
	did := s.resetLocked(b, err)
	s.c.mu.Unlock()
	if did {
		s.c.countReset()
		s.deliver(Event{Kind: Closed, Batch: b, Err: err})
	}
}

// Release says that its user is done with the stream and will not touch it again. One that is still
// open is reset: with NO_ERROR at a server that has answered in full (RFC 9113 section 8.1), else
// with CANCEL.
func (s *Stream) Release(b *Batch) {
	c := s.c
	c.mu.Lock()
	if s.released {
		c.mu.Unlock()
		return
	}
	s.released = true
	s.receiver = nil
	if s.closed {
		c.retired = append(c.retired, s)
	} else if s.tail != nil {
		// closes when Finish has sent the rest
	} else if s.localEnd && !c.client {
		s.resetLocked(b, &StreamError{Code: NoError})
	} else {
		s.resetLocked(b, &StreamError{Code: Cancel})
	}
	c.mu.Unlock()
	b.done(c)
}
