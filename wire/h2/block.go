package h2

import (
	"context"
	"io"
)

// ReadHead waits for a client's response and returns its final head. Interim responses are skipped.
// When ctx ends the stream is reset with CANCEL.
func (s *Stream) ReadHead(ctx context.Context) (*Head, error) {
	stop := context.AfterFunc(ctx, func() { s.Reset(nil, Cancel) })
	defer stop()
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for !s.headSeen && s.err == nil {
		waitLocked(c, &s.readers)
	}
	if s.headSeen {
		return &s.head, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, s.err
}

// waitLocked lets the connection go until the stream is woken.
func waitLocked(c *Conn, ch *chan struct{}) {
	if *ch == nil {
		*ch = make(chan struct{}, 1)
	}
	wake := *ch
	c.mu.Unlock()
	<-wake
	c.mu.Lock()
}

// Read waits for bytes of the body. It returns io.EOF at the end of the stream's other side; the
// trailers are there then. [Stream.Reset] wakes it.
func (s *Stream) Read(p []byte) (int, error) {
	c := s.c
	c.mu.Lock()
	for s.keptAt == len(s.kept) && !s.keptEnd && s.err == nil {
		waitLocked(c, &s.readers)
	}
	n := copy(p, s.kept[s.keptAt:])
	if n == 0 {
		defer c.mu.Unlock()
		if s.keptEnd {
			return 0, io.EOF
		}
		return 0, s.err
	}
	s.dropKept(n)
	s.consumedLocked(nil, n)
	c.mu.Unlock()
	c.flush()
	return n, nil
}

// Write sends p, waiting for windows and for the socket. [Stream.Reset] wakes it.
func (s *Stream) Write(p []byte) (int, error) {
	c := s.c
	sent := 0
	for {
		c.mu.Lock()
		n, err := s.sendLocked(p[sent:], false)
		c.mu.Unlock()
		c.flush()
		sent += n
		if err != nil || sent == len(p) {
			return sent, err
		}
		c.mu.Lock()
		for s.starved && s.err == nil {
			waitLocked(c, &s.writers)
		}
		c.mu.Unlock()
	}
}

// CloseWrite ends the sending side, with trailers where there are any.
func (s *Stream) CloseWrite(trailers *Head) error {
	if trailers != nil && len(trailers.Fields) > 0 {
		return s.SendHead(nil, trailers, true)
	}
	_, err := s.SendData(nil, nil, true)
	return err
}
