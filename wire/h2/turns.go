package h2

import "slices"

// turns are the streams that have bytes to send and must wait for the connection: for its window, for the socket, or
// because others wait already. They are served in turn by source, and those of one source in turn, so that
// who has many streams gets no more than who has one. The connection's mutex guards it.
type turns struct {
	queues  []queue // of sources, the next one first; none is empty
	serving bool    // somebody is in serve
}

type queue struct {
	source  string
	waiting []*Stream
}

// turn is how many bytes of DATA a stream sends before the next source has its turn.
const turn = 2 * frameMax

// SetSource says for whom the stream is: when the connection is full, its sources are served in turn. Streams
// without one have one in common.
func (s *Stream) SetSource(name string) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.source = name
}

// addLocked puts a stream behind the others of its source.
func (t *turns) addLocked(s *Stream) {
	for i := range t.queues {
		if q := &t.queues[i]; q.source == s.source {
			q.waiting = append(q.waiting, s)
			return
		}
	}
	t.queues = append(t.queues, queue{s.source, []*Stream{s}})
}

// nextLocked takes the stream whose turn it is; its source is the last one then.
func (t *turns) nextLocked() *Stream {
	q := t.queues[0]
	s := q.waiting[0]
	q.waiting = slices.Delete(q.waiting, 0, 1)
	t.queues = slices.Delete(t.queues, 0, 1)
	if len(q.waiting) > 0 {
		t.queues = append(t.queues, q)
	}
	return s
}

func (t *turns) removeLocked(s *Stream) {
	for i := range t.queues {
		q := &t.queues[i]
		at := slices.Index(q.waiting, s)
		if at < 0 {
			continue
		}
		if q.waiting = slices.Delete(q.waiting, at, at+1); len(q.waiting) == 0 {
			t.queues = slices.Delete(t.queues, i, i+1)
		}
		return
	}
}

// roomLocked is how many bytes of DATA the output takes of a stream.
func (c *Conn) roomLocked(s *Stream) int {
	room := c.cfg.MaxOutput - len(c.writer.out)
	switch {
	case s.credit > 0:
		return min(s.credit, room)
	case c.turns.serving || len(c.turns.queues) > 0:
		return 0
	}
	return room
}

// serve lets those that wait send, in turn, until none waits or the connection is full again. Who writes begins
// it again once all is written, so that it may stop for another writer. The caller holds no lock of a Receiver's.
func (c *Conn) serve() {
	c.mu.Lock()
	t, w := &c.turns, &c.writer
	if t.serving || len(t.queues) == 0 {
		c.mu.Unlock()
		return
	}
	t.serving = true
	b := Batch{}
	for len(t.queues) > 0 && !w.blocked && !w.broken && c.sendWindow > 0 {
		if len(w.out) < c.cfg.MaxOutput {
			c.serveLocked(&b, t.nextLocked())
			continue
		}
		if w.writing {
			break
		}
		c.mu.Unlock()
		c.flush()
		c.mu.Lock()
	}
	t.serving = false
	c.mu.Unlock()
	b.flush()
}

// serveLocked gives a stream its turn. One that is read and written as a file is may use it later.
func (c *Conn) serveLocked(b *Batch, s *Stream) {
	s.starved, s.credit = false, turn
	s.pins++ // this may not be the reading goroutine
	c.mu.Unlock()
	s.deliver(Event{Kind: Writable, Batch: b})
	c.mu.Lock()
	s.pins--
	if s.receiver != nil || s.tail != nil {
		s.credit = 0
	}
}
