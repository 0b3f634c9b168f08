package proxy

import (
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h2"
)

// appendPeerHeaders is appendPeerFields for HTTP/2.
func (x *exchange) appendPeerHeaders(f []h2.Field) []h2.Field {
	node := x.p.cfg.Node
	if node == "" {
		node = hubNode
	}
	port := strconv.Itoa(int(x.route.port.Number))
	if x.route.via != "" {
		f = append(f, h2.Field{Name: peerVia, Value: x.route.name})
	}
	return append(f,
		h2.Field{Name: peerNode, Value: node},
		h2.Field{Name: peerSource, Value: x.source.Service + "/" + x.source.Instance},
		h2.Field{Name: peerTarget, Value: x.place.service + "/" + x.place.instance + ":" + port})
}

// findForPeer takes caller and target from a peer's fields, if the snapshot lets it speak for them.
func (c *http2Session) findForPeer(s *http2Stream) {
	x := &s.exchange
	h := s.down.Head()
	x.peer = true
	node := h.Get(peerNode)
	service, instance, _ := strings.Cut(h.Get(peerSource), "/")
	to, ok := parsePeerTarget(h.Get(peerTarget))
	to.via = h.Get(peerVia)
	x.source = Source{Service: service, Instance: instance}
	x.obs.Caller, x.obs.From = service, instance
	if ok && x.table.speaksFor(speaker(c.nc, node), service) {
		x.route = x.table.route(service, to)
		return
	}
	x.route = &route{caller: service, callee: to.host, name: fleet.DefaultRoute, kind: fleet.KindCall, refusal: notPlaced(node, service)}
}

// peerRefusal looks at an answer that a peer gave itself, as session.peerRefusal does.
func (s *http2Stream) peerRefusal(h *h2.Head) outcome {
	if !s.place.peer() {
		return outcome{}
	}
	switch reason := fleet.Reason(h.Get("shoal-reason")); reason {
	case "":
	case fleet.ReasonNoEndpoint, fleet.ReasonConnectFailed:
		return outcome{reason: reason, unseen: true, detail: "cannot be reached by its node"}
	default:
		s.obs.Reason = string(reason)
	}
	return outcome{}
}
