package proxy

import (
	"bytes"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h1"
)

// The fields by which one proxy tells another whom a request is from and for. They never leave the
// connections between peers.
const (
	peerNode   = "shoal-peer-node"   // who speaks: a node's name, or hub
	peerSource = "shoal-peer-source" // service/instance
	peerTarget = "shoal-peer-target" // service/instance:port
	peerVia    = "shoal-peer-via"    // service/route that hands the call over to the target; absent: none does
)

func (x *exchange) appendPeerFields(dst []byte) []byte {
	node := x.p.cfg.Node
	if node == "" {
		node = hubNode
	}
	dst = appendField(dst, peerNode+": ", node)
	dst = append(dst, peerSource+": "...)
	dst = append(dst, x.source.Service...)
	dst = append(dst, '/')
	dst = append(dst, x.source.Instance...)
	dst = append(dst, "\r\n"+peerTarget+": "...)
	dst = append(dst, x.place.service...)
	dst = append(dst, '/')
	dst = append(dst, x.place.instance...)
	dst = append(dst, ':')
	dst = strconv.AppendUint(dst, uint64(x.route.port.Number), 10)
	if x.route.via != "" {
		dst = append(dst, "\r\n"+peerVia+": "...)
		dst = append(dst, x.route.name...)
	}
	return append(dst, '\r', '\n')
}

// findForPeer takes caller and target from a peer's fields, if the snapshot lets it speak for them.
func (s *session) findForPeer(x *exchange) {
	x.peer = true
	node := string(s.req.Get(s.head, peerNode))
	who := speaker(s.conn, node)
	service, instance, _ := strings.Cut(string(s.req.Get(s.head, peerSource)), "/")
	to, ok := parsePeerTarget(string(s.req.Get(s.head, peerTarget)))
	to.via = string(s.req.Get(s.head, peerVia))
	x.source = Source{Service: service, Instance: instance}
	x.obs.Caller, x.obs.From = service, instance
	if ok && x.table.speaksFor(who, service) {
		x.route = x.table.route(service, to)
		return
	}
	x.route = &route{caller: service, callee: to.host, name: fleet.DefaultRoute, kind: fleet.KindCall, refusal: notPlaced(node, service)}
}

// spokesman is who speaks on a peer's connection.
type spokesman struct {
	node   string
	proved bool // by a certificate; else the connection itself could come from this machine only
}

// speaker is who speaks on c and says to be claimed: what is proved holds, and a claim that differs is
// nobody's.
func speaker(c net.Conn, claimed string) spokesman {
	p, ok := c.(peerName)
	switch {
	case !ok:
		return spokesman{node: claimed}
	case p.Peer() != claimed:
		return spokesman{proved: true}
	}
	return spokesman{node: claimed, proved: true}
}

// speaksFor reports whether a process may speak for a service: the hub for the broker, a node for what it
// runs; the gateway, to which only what is exposed to everyone is open, speaks from any node. For the
// operator speaks who has the operator's socket: each process of this machine, and the hub.
func (t *table) speaksFor(who spokesman, service string) bool {
	hub := who.node == hubNode
	switch {
	case who.node == "":
		return false
	case service == fleet.Operator:
		return hub || !who.proved
	case service == fleet.Gateway:
		return !hub
	case hub:
		return service == fleet.Events || service == fleet.Pubsub
	}
	return t.placed(who.node, service)
}

func parsePeerTarget(text string) (target, bool) {
	service, rest, ok := strings.Cut(text, "/")
	i := strings.LastIndexByte(rest, ':')
	if !ok || i < 0 {
		return target{}, false
	}
	port, err := strconv.ParseUint(rest[i+1:], 10, 16)
	return target{host: service, instance: rest[:i], port: uint16(port), exact: true}, err == nil
}

func notPlaced(node, service string) *refusal {
	return &refusal{
		status: 403, reason: fleet.ReasonNotAllowed,
		detail: "the peer \"" + node + "\" may not speak for \"" + service + "\": the snapshot does not place it there.",
		remedy: "Snapshots may be a moment apart; if this lasts, `shoal status` shows where the service runs.",
	}
}

// peerRefusal looks at an answer that a peer gave itself. What says that it could not reach the
// instance is as if this process had not reached it; any other refusal is passed on, and noted.
func (s *session) peerRefusal(x *exchange, u *upstream, b *buffer) outcome {
	if !x.place.peer() {
		return outcome{}
	}
	reason := fleet.Reason(s.res.Get(b.bytes(), "shoal-reason"))
	switch reason {
	case "":
	case fleet.ReasonNoEndpoint, fleet.ReasonConnectFailed:
		s.abandon(x, u)
		return outcome{reason: reason, unseen: true, detail: "cannot be reached by its node"}
	default:
		x.obs.Reason = string(reason)
	}
	return outcome{}
}

// openPeer asks the peer at the other end of c for a tunnel.
func (x *exchange) openPeer(c net.Conn) (late []byte, o outcome) {
	unreachable := outcome{reason: fleet.ReasonConnectFailed, unseen: true, detail: "cannot be reached by its node"}
	authority := x.place.service + ":" + strconv.Itoa(int(x.route.port.Number))
	out := appendField([]byte("CONNECT "+authority+" HTTP/1.1\r\n"), "Host: ", authority)
	out = appendField(out, requestIDField, x.obs.RequestID)
	out = append(x.appendTraceparent(append(out, traceField...)), '\r', '\n')
	out = append(x.appendPeerFields(out), '\r', '\n')
	_ = c.SetDeadline(time.Now().Add(dialTimeout))
	if _, err := c.Write(out); err != nil {
		return nil, unreachable
	}
	b := getBuffer()
	defer putBuffer(b)
	var res h1.Response
	if err := readHead(c, b, &res); err != nil {
		return nil, unreachable
	}
	_ = c.SetDeadline(time.Time{})
	if res.Status != 200 {
		unreachable.reason = fleet.Reason(res.Get(b.bytes(), "shoal-reason"))
		if unreachable.reason == "" {
			unreachable.reason = fleet.ReasonConnectFailed
		}
		unreachable.unseen = unreachable.reason == fleet.ReasonNoEndpoint || unreachable.reason == fleet.ReasonConnectFailed
		return nil, unreachable
	}
	return bytes.Clone(b.bytes()[res.Size:]), outcome{}
}

// readHead reads the head of a response from c into b.
func readHead(c net.Conn, b *buffer, res *h1.Response) error {
	for {
		n, err := h1.End(b.bytes(), 0, h1.Limits{Head: bufferSize})
		if err != nil {
			return err
		}
		if n > 0 {
			return res.Parse(b.bytes()[:n], h1.Limits{})
		}
		n, err = c.Read(b.room(bufferSize))
		b.w += n
		if err != nil {
			return err
		}
	}
}
