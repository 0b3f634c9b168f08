package proxy

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// peerField is the field by which one proxy tells another whom a request is from and for:
//
//	NODE SERVICE/INSTANCE SERVICE/INSTANCE:PORT VERSION [SERVICE/ROUTE]
//
// NODE is who speaks: a node's name, or hub. VERSION is that of HTTP in which the caller speaks, 1 or 2:
// the application is spoken to in the same, unless it is known to speak the other one only. The route is the one that hands the call over to the target,
// where one does. The field never leaves the connections between peers, and
// is one, since each of a request's fields costs both sides time.
const peerField = "shoal-peer"

// peerDeadline is the field that tells how many milliseconds are left, where that is less than what the
// route allows: both sides know the route. gRPC has grpc-timeout.
const peerDeadline = "shoal-peer-deadline"

// introduction is the value of peerField for calls of one source.
type introduction struct {
	source Source
	port   uint16
	http1  bool
	route  string
	text   string
}

// introduce returns what tells the peer before pl that a request is from src, for a port of pl. It is made
// once for each of the few sources that a process has.
func (pl *place) introduce(src Source, r *route, http1 bool) string {
	port, via := r.port.Number, ""
	if r.via != "" {
		via = r.name
	}
	for all := pl.introductions.Load(); ; all = pl.introductions.Load() {
		var known []introduction
		if all != nil {
			known = *all
		}
		for i := range known {
			if n := &known[i]; n.source == src && n.port == port && n.http1 == http1 && n.route == via {
				return n.text
			}
		}
		n := introduction{src, port, http1, via, pl.introductionOf(src, port, http1, via)}
		if len(known) >= maxIntroductions {
			return n.text
		}
		more := append(slices.Clip(known), n)
		pl.introductions.CompareAndSwap(all, &more)
	}
}

// maxIntroductions bounds what one place keeps.
const maxIntroductions = 256

func (pl *place) introductionOf(src Source, port uint16, http1 bool, via string) string {
	node, version := pl.p.cfg.Node, " 2"
	if node == "" {
		node = hubNode
	}
	if http1 {
		version = " 1"
	}
	if via != "" {
		version += " " + via
	}
	return node + " " + src.Service + "/" + src.Instance + " " +
		pl.service + "/" + pl.instance + ":" + strconv.Itoa(int(port)) + version
}

// introduced is what a peer's field says, and what the table makes of it.
type introduced struct {
	source Source
	http1  bool
	route  *route
}

// introduced reads a peer's field. The route is one that refuses, where the peer on c may not say that.
func (t *table) introduced(c net.Conn, field string) introduced {
	part := strings.SplitN(field, " ", 5)
	if len(part) < 4 {
		part = []string{"", "", "", ""}
	}
	service, instance, _ := strings.Cut(part[1], "/")
	n := introduced{source: Source{Service: service, Instance: instance}, http1: part[3] == "1"}
	to, ok := parsePeerTarget(part[2])
	if len(part) == 5 {
		to.via = part[4]
	}
	if ok && t.speaksFor(speaker(c, part[0]), service) {
		n.route = t.route(service, to)
		return n
	}
	n.route = &route{caller: service, callee: to.host, name: fleet.DefaultRoute, kind: fleet.KindCall, refusal: t.notPlaced(part[0], service)}
	return n
}

// peerName is what a connection that [Proxy.ServePeer] accepts tells where the one at its other end has
// proved who it is: a node's name, or "hub". A connection without it is taken at its word, which is
// right only where the operating system lets nobody else connect (a Unix socket of mode 0600).
type peerName interface{ Peer() string }

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

func (t *table) notPlaced(node, service string) *refusal {
	remedy := "Snapshots may be a moment apart; if this lasts, `shoal status` shows where the service runs."
	if nodes := t.snapshot.NodesOf(service); len(nodes) > 0 {
		remedy = service + " runs on " + strings.Join(nodes, ", ") + ": what acts as it, such as `shoal call --from " + service + "`, is typed there."
	}
	return &refusal{
		status: 403, reason: fleet.ReasonNotAllowed,
		detail: "the peer \"" + node + "\" may not speak for \"" + service + "\": the snapshot does not place it there, or its certificate names another.",
		remedy: remedy,
	}
}

// refusedByPeer looks at the reason in an answer that a peer gave itself. What says that it could not
// reach the instance is as if this process had not reached it; any other refusal is passed on, and noted.
func (x *exchange) refusedByPeer(reason fleet.Reason) outcome {
	reason = fleet.Reason(strings.Clone(string(reason))) // which may be of the stream, and is kept longer
	switch reason {
	case "":
	case fleet.ReasonNoEndpoint, fleet.ReasonConnectFailed:
		return outcome{reason: reason, unseen: true, detail: "cannot be reached by its node"}
	case fleet.ReasonOverloaded:
		return outcome{reason: reason, unseen: true, detail: "works on as much as it can, says its node"}
	default:
		x.obs.Reason = string(reason)
	}
	return outcome{}
}
