package h2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/shoalrun/shoal/wire/hpack"
)

// exceeded names the limit that a header list is over.
func (c *Conn) exceeded(l *hpack.List) (limit, text string) {
	if l.Size() > int(c.cfg.MaxHeaderList) {
		return "head", fmt.Sprintf("is over its limit of %d bytes", c.cfg.MaxHeaderList)
	}
	return "fields", fmt.Sprintf("is over its limit of %d fields", c.cfg.MaxFields)
}

func (c *Conn) over(what string, l *hpack.List) string {
	limit, text := c.exceeded(l)
	return what + " " + text + " (limits: " + limit + ")"
}

// slack is how much over MaxHeaderList is still decoded, to be refused politely; more ends the connection.
const slack = 2

func (c *Conn) decode(block []byte) error {
	c.list.Reset()
	err := c.dec.Decode(&c.list, block, hpack.Limits{Size: int(c.cfg.MaxHeaderList), Fields: c.cfg.MaxFields})
	switch {
	case errors.Is(err, hpack.ErrStringLength):
		return connError(EnhanceYourCalm, fmt.Sprintf("a header field far over %d bytes (limits: head)", c.cfg.MaxHeaderList))
	case err != nil:
		return connError(CompressionError, err.Error())
	}
	return nil
}

func (c *Conn) onHeaders(f *frame) error {
	if f.id == 0 {
		return connError(ProtocolError, "HEADERS without a stream")
	}
	p, err := f.unpad()
	if err != nil {
		return err
	}
	c.blockSelf = false
	if f.has(flagPriority) {
		if len(p) < 5 {
			return connError(FrameSizeError, "HEADERS too short for its priority")
		}
		c.blockSelf = binary.BigEndian.Uint32(p)&idMax == f.id
		p = p[5:]
	}
	c.blockFlags = f.flags
	if f.has(flagEndHeaders) {
		return c.onBlock(f.id, p)
	}
	c.blockID = f.id
	c.began.Store(time.Now().UnixNano())
	c.block = append(c.block[:0], p...)
	return nil
}

func (c *Conn) onContinuation(f *frame) error {
	if f.id != c.blockID || f.id == 0 {
		return connError(ProtocolError, "CONTINUATION without HEADERS")
	}
	if err := c.countControl(); err != nil {
		return err
	}
	if len(c.block)+len(f.payload) > slack*int(c.cfg.MaxHeaderList) {
		return connError(EnhanceYourCalm, fmt.Sprintf("a header block far over %d bytes (limits: head)", c.cfg.MaxHeaderList))
	}
	c.block = append(c.block, f.payload...)
	if !f.has(flagEndHeaders) {
		return nil
	}
	c.blockID = 0
	c.began.Store(0)
	block := c.block
	c.block = nil
	return c.onBlock(f.id, block)
}

// onBlock takes a whole header block. It is decoded in any case: the table is the connection's.
func (c *Conn) onBlock(id uint32, block []byte) error {
	if err := c.decode(block); err != nil {
		return err
	}
	end := c.blockFlags&flagEndStream != 0
	c.mu.Lock()
	s := c.streams[id]
	c.mu.Unlock()
	switch {
	case s != nil && c.blockSelf:
		s.fail(&c.batch, ProtocolError, "a stream that depends on itself")
		return nil
	case s != nil && s.headSeen:
		c.onTrailers(s, end)
		return nil
	case s != nil:
		c.onResponse(s, end)
		return nil
	case c.client:
		return c.lateResponse(id)
	}
	return c.onRequest(id, end)
}

// lateResponse is for a stream that we reset, or that never was.
func (c *Conn) lateResponse(id uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idleLocked(id) {
		return connError(ProtocolError, "HEADERS on an idle stream")
	}
	return nil
}

func (c *Conn) onRequest(id uint32, end bool) error {
	c.mu.Lock()
	if err := c.newIDLocked(id); err != nil || c.stage == draining || id <= c.acceptedID {
		c.mu.Unlock()
		return err
	}
	c.acceptedID = id
	code := NoError
	if c.blockSelf {
		code = ProtocolError
	} else if c.active >= c.cfg.MaxStreams || c.cloggedLocked() {
		code = RefusedStream
	}
	if code != NoError {
		c.rejectLocked(id, code)
		c.mu.Unlock()
		return c.countControl()
	}
	s := c.newStreamLocked(id)
	s.headSeen = true
	s.remoteEnd = end
	c.mu.Unlock()
	c.accept(s, end)
	return nil
}

// newIDLocked wants growing odd numbers (section 5.1.1). HEADERS on a stream that we reset are late.
func (c *Conn) newIDLocked(id uint32) error {
	if id%2 == 0 {
		return connError(ProtocolError, "a stream of a client has an odd number")
	}
	if id > c.acceptedID {
		return nil
	}
	for _, old := range c.closedIDs {
		if old.id == id && old.reset {
			return nil
		}
		if old.id == id {
			return connError(StreamClosed, "HEADERS on a closed stream")
		}
	}
	return connError(ProtocolError, "stream numbers must grow")
}

// accept checks a request and hands it on.
func (c *Conn) accept(s *Stream, end bool) {
	s.list, c.list = c.list, s.list
	if s.list.Over {
		s.head = Head{Length: -1, Fields: s.list.Fields}
		s.keptEnd = end
		c.refuseTooLarge(s)
		return
	}
	why := s.head.parse(s.list.Fields, request)
	switch {
	case why != "":
	case end && s.head.Length > 0:
		why = "content-length, and no body"
	case s.head.Protocol != "" && !c.cfg.ExtendedConnect:
		why = "pseudo-header field :protocol, though SETTINGS_ENABLE_CONNECT_PROTOCOL was not sent"
	}
	if why != "" {
		s.fail(&c.batch, ProtocolError, why)
		s.Release(&c.batch)
		return
	}
	s.length = s.head.Length
	s.keptEnd = end
	c.handle(s, &c.batch)
}

func (c *Conn) refuseTooLarge(s *Stream) {
	const what = "the request's header list"
	if c.cfg.TooLarge != nil {
		limit, text := c.exceeded(&s.list)
		c.cfg.TooLarge(s, &c.batch, what+" "+text, limit)
		return
	}
	h := Head{Status: 431, Length: -1, Fields: []Field{{Name: "content-type", Value: "text/plain; charset=utf-8"}}}
	_ = s.SendHead(&c.batch, &h, false)
	s.Finish(&c.batch, []byte(c.over(what, &s.list)+"\n"))
	s.Release(&c.batch)
}

func (c *Conn) onResponse(s *Stream, end bool) {
	if c.list.Over {
		s.fail(&c.batch, Cancel, c.over("the response's header list", &c.list))
		return
	}
	s.list, c.list = c.list, s.list
	why := s.head.parse(s.list.Fields, response)
	interim := s.head.Status < 200
	if why == "" && interim && end {
		why = "an interim response that ends the stream"
	}
	if why == "" {
		s.length = s.head.Length
		if s.noBody || s.head.Status == 204 || s.head.Status == 304 {
			s.length = 0
		}
		if end && s.length > 0 {
			why = "content-length, and no body"
		}
	}
	if why != "" {
		s.fail(&c.batch, ProtocolError, why)
		return
	}
	c.mu.Lock()
	r := s.receiver
	s.headSeen = !interim
	if end {
		s.endRemoteLocked()
	}
	if r == nil {
		s.keptEnd = s.keptEnd || end
		s.wakeLocked()
	}
	c.mu.Unlock()
	if r != nil {
		r.Receive(s, Event{Kind: Headers, Batch: &c.batch, End: end})
	}
}

func (c *Conn) onTrailers(s *Stream, end bool) {
	c.mu.Lock()
	ended := s.remoteEnd
	short := s.length >= 0 && s.body != s.length
	c.mu.Unlock()
	s.trailerList, c.list = c.list, s.trailerList
	why := s.trailers.parse(s.trailerList.Fields, trailers)
	switch {
	case ended:
		s.fail(&c.batch, StreamClosed, "HEADERS after the end of the stream")
		return
	case !end:
		why = "trailers that do not end the stream"
	case s.trailerList.Over:
		why = c.over("the trailer section", &s.trailerList)
	case short:
		why = "content-length is not the length of the body"
	case why == "":
		why = s.trailers.checkTrailers(c.cfg.Guard)
	}
	if why != "" {
		s.fail(&c.batch, ProtocolError, why)
		return
	}
	c.mu.Lock()
	r := s.receiver
	s.hasTrailers = true
	s.endRemoteLocked()
	if r == nil {
		s.keptEnd = true
		s.wakeLocked()
	}
	c.mu.Unlock()
	if r != nil {
		r.Receive(s, Event{Kind: Trailers, Batch: &c.batch, End: true})
	}
}
