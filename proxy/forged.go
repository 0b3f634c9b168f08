package proxy

import (
	"github.com/shoalrun/shoal/fleet"
)

// forged reports whether a request's field is, or could be read as, one that only Shoal may set. Servers
// that hand fields over as CGI does (RFC 3875 section 4.1.18) give `Shoal-Caller` and `Shoal_Caller` one
// name, and some do so with every mark.
func forged(name string) bool {
	return alike(name, internalPrefix) || len(name) == len("x-request-id") && alike(name, "x-request-id")
}

// alike reports whether name begins with prefix, which is in lower case, where each hyphen of prefix
// stands for any mark.
func alike(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		c := name[i]
		switch mark := (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z'); {
		case prefix[i] == '-' && !mark, prefix[i] != '-' && c|0x20 != prefix[i]:
			return false
		}
	}
	return true
}

// connects reports whether the request asks for a tunnel to a port of the fleet that speaks HTTP.
func (s *session) connects(x *exchange) bool {
	return x.obs.Method == "CONNECT" && x.route.service != nil && x.route.port.Protocol != fleet.TCP
}

// connect answers a CONNECT to such a port. What is in the tunnel is served as any connection of this
// caller is: as bytes it would pass by permission, and could carry another caller's name.
func (s *session) connect(x *exchange) {
	x.obs.Kind, x.obs.Callee, x.obs.Protocol, x.obs.Route = fleet.KindStream, x.route.callee, x.route.port.Protocol, x.route.name
	switch {
	case x.route.refusal != nil:
		x.refuse(x.route.refusal)
	case s.from.aim == aimEdge:
		x.refuse(&refusal{
			status: 405, reason: fleet.ReasonMalformed,
			detail: "the gateway makes no tunnels.",
			remedy: "Call " + x.route.callee + " itself; a WebSocket is a request that asks for an upgrade.",
		})
	}
	if x.refusal == nil {
		x.refusal = s.connectWithin(x)
	}
	if x.refusal != nil {
		s.refuse(x)
	}
	x.observe()
}

func (s *session) connectWithin(x *exchange) *refusal {
	l := &listener{p: s.p, source: s.from.source, aim: aimFixed, target: x.route.asked, sessions: map[hurried]struct{}{}}
	c, err := l.open()
	if err != nil {
		return failed(x.route.callee, outcome{reason: fleet.ReasonConnectFailed, detail: err.Error()})
	}
	defer l.release()
	x.obs.Status, s.begun = 200, true
	if s.write([]byte("HTTP/1.1 200 Connection Established\r\n\r\n")) != nil {
		c.Close()
		s.keep = false
		return callerGone(x.route.callee)
	}
	s.tunnel(x, c, nil)
	return nil
}
