package proxy

import (
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h2"
)

// servePeer serves another process's proxy.
func (l *listener) servePeer(c net.Conn) {
	s := &http2Session{p: l.p, from: l, nc: c}
	s.serve(l.p.peerConfig(nil), nil)
}

// appendPeerFields tells the peer before x.place whom the request is from and for, and how much time is
// left, where that is less than it would give by itself.
func (x *exchange) appendPeerFields(f []h2.Field, http1 bool) []h2.Field {
	f = append(f, h2.Field{Name: peerField, Value: x.place.introduce(x.source, x.route, http1)})
	fresh := x.prompt() && x.deadline.Equal(x.obs.Time.Add(x.route.timeout))
	if fresh || x.deadline.IsZero() || x.obs.Protocol == fleet.GRPC {
		return f
	}
	left := max(time.Until(x.deadline).Milliseconds(), 1)
	return append(f, h2.Field{Name: peerDeadline, Value: strconv.FormatInt(left, 10)})
}

// knownIntroductions bounds what one connection keeps.
const knownIntroductions = 1024

// findForPeer takes caller and target from a peer's fields, if the snapshot lets it speak for them.
func (c *http2Session) findForPeer(s *http2Stream) {
	h := s.down.Head()
	s.http1 = c.introduce(&s.exchange, h)
	s.down.SetSource(s.source.Service)
	s.peerBound(h)
}

// introduce sets what the peer's field says, and reports whether the caller speaks HTTP/1.1.
func (c *http2Session) introduce(x *exchange, h *h2.Head) (http1 bool) {
	field := h.Get(peerField)
	if c.table != x.table || len(c.introduced) >= knownIntroductions {
		c.table = x.table
		c.introduced = map[string]introduced{}
	}
	n, known := c.introduced[field]
	if !known {
		field = strings.Clone(field)
		n = x.table.introduced(c.nc, field)
		c.introduced[field] = n
	}
	x.peer = true
	x.source, x.route = n.source, n.route
	x.obs.Caller, x.obs.From = n.source.Service, n.source.Instance
	return n.http1
}

// peerBound ends the exchange when the peer's caller stops waiting.
func (s *http2Stream) peerBound(h *h2.Head) {
	s.latest = time.Time{}
	text := h.Get(peerDeadline)
	if text == "" {
		return
	}
	if ms, err := strconv.ParseUint(text, 10, 40); err == nil {
		s.latest = s.obs.Time.Add(time.Duration(ms) * time.Millisecond)
	}
}

// peerRefusal looks at an answer that a peer may have given itself.
func (s *http2Stream) peerRefusal(h *h2.Head) outcome {
	if !s.place.peer() {
		return outcome{}
	}
	return s.refusedByPeer(fleet.Reason(h.Get("shoal-reason")))
}
