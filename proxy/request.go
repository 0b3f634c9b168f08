package proxy

import (
	"net"
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// The fields that Shoal adds. Callers' own fields of that prefix never get through.
const (
	internalPrefix = "shoal-"
	guardedPrefix  = "shoal" // of trailers: with whatever mark behind it
	callerField    = "Shoal-Caller: "
	reasonField    = "Shoal-Reason: "
	requestIDField = "X-Request-Id: "
	traceField     = "traceparent: " // in lower case, as the recommendation asks of senders
)

// exchange does one exchange, whose head is parsed. It reports whether the connection goes on.
func (s *session) exchange() bool {
	s.keep = !s.req.Close && !s.closing.Load()
	s.begun, s.served = false, true
	x := &s.x
	x.begin(s.p, s.from.source, &s.gone)
	x.stalled = &s.stalled
	s.describe(x)
	s.find(x)
	if s.connects(x) {
		s.connect(x)
	} else {
		x.call(s)
	}
	s.since = x.obs.Time.Add(x.obs.Duration)
	s.endBody()
	return s.keep
}

// describe notes what stages and records need to know of the request, and marks the fields that are
// not forwarded.
func (s *session) describe(x *exchange) {
	x.obs.Method = view(s.req.Method.Of(s.head))
	x.obs.Path = view(s.req.Path.Of(s.head))
	x.obs.BytesIn = int64(s.taken)
	x.idempotent = idempotent(x.obs.Method)
	var id []byte
	var t traceFields
	for i := range s.req.Fields {
		f := &s.req.Fields[i]
		switch f.Name.Len() {
		case 10:
			if f.Is(s.head, "tracestate") {
				t.state(view(f.Value.Of(s.head)))
			}
		case 11:
			if f.Is(s.head, "traceparent") {
				t.parent(view(f.Value.Of(s.head)))
				f.Drop = true // said once, with a span of ours
			}
		case 12:
			if f.Is(s.head, "x-request-id") {
				id = f.Value.Of(s.head)
				f.Drop = true // said once, with what is kept or made
			}
		case 15:
			x.idempotent = x.idempotent || f.Is(s.head, "idempotency-key")
		case len(timeoutField):
			if f.Is(s.head, timeoutField) && s.from.aim != aimEdge {
				x.asked(view(f.Value.Of(s.head)))
			}
		}
		switch name := view(f.Name.Of(s.head)); name[0] | 0x20 {
		case 's':
			f.Drop = f.Drop || forged(name)
		case 'x': // the edge says who called; nobody before it is trusted
			f.Drop = f.Drop || forged(name) || s.from.aim == aimEdge && alike(name, "x-forwarded-")
		}
	}
	x.requestID(id)
	x.trace(t.trace())
	if t.dropsState() {
		s.dropTracestate()
		return
	}
	t.noteState(&x.obs)
}

// dropTracestate keeps what belongs to no trace from being forwarded.
func (s *session) dropTracestate() {
	for i := range s.req.Fields {
		if f := &s.req.Fields[i]; f.Is(s.head, "tracestate") {
			f.Drop = true
		}
	}
}

// field is what stages look at: the fields that are forwarded.
func (s *session) field(name string, nth int) (string, bool) {
	for i := range s.req.Fields {
		f := &s.req.Fields[i]
		if f.Drop || !f.Is(s.head, name) {
			continue
		}
		if nth == 0 {
			return view(f.Value.Of(s.head)), true
		}
		nth--
	}
	return "", false
}

// idempotent: RFC 9110 section 9.2.2.
func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE":
		return true
	}
	return false
}

// find sets the exchange's route: that of the exchange before, while neither the table nor what is
// called has changed.
func (s *session) find(x *exchange) {
	switch s.from.aim {
	case aimFixed, aimCapture:
		if s.table != x.table {
			s.remember(x.table, x.table.route(x.source.Service, s.target))
		}
	case aimHost:
		s.findHost(x)
	case aimEdge:
		s.findExposed(x)
	case aimMirror:
		s.from.copied.find(x)
		return
	}
	x.route = s.route
}

func (s *session) remember(t *table, r *route) { s.table, s.route = t, r }

func (s *session) findHost(x *exchange) {
	host := s.req.Host.Of(s.head)
	if s.table == x.table && string(host) == s.host {
		return
	}
	s.host = string(host)
	s.remember(x.table, x.table.route(x.source.Service, parseTarget(s.host)))
}

// parseTarget reads HOST or HOST:PORT. A port that is no number is none.
func parseTarget(hostport string) target {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return target{host: strings.Trim(hostport, "[]")}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return target{host: host}
	}
	return target{host: host, port: uint16(n)}
}

func (s *session) findExposed(x *exchange) {
	host := view(s.req.Host.Of(s.head))
	service, ok := s.from.match(host, x.obs.Path)
	switch {
	case !ok:
		x.table.nowhere(s, host)
	case s.table != x.table || s.host != service:
		s.host = service
		s.remember(x.table, x.table.route(fleet.Gateway, target{host: service, exact: true}))
	}
}

// nowhere makes the route of a request at the gateway that no service answers for.
func (t *table) nowhere(s *session, host string) {
	r := t.route(fleet.Gateway, target{host: "-"})
	refused := *r
	refused.callee = "-"
	refused.refusal = nothingExposed(strings.Clone(host))
	s.host = ""
	s.remember(t, &refused)
}

// compose appends the head of the request as x.place is to see it.
func (s *session) compose(dst []byte, x *exchange) []byte {
	dst = s.req.AppendLine(dst, s.head)
	dst = s.req.AppendFields(dst, s.head)
	if s.req.Upgrade {
		dst = append(dst, "Connection: Upgrade\r\n"...)
	}
	dst = appendField(dst, requestIDField, x.obs.RequestID)
	dst = x.appendTraceparent(append(dst, traceField...))
	dst = append(dst, '\r', '\n')
	if x.route.service != nil {
		dst = appendField(dst, callerField, x.source.Service)
	}
	dst = x.appendTimeout(dst)
	if s.from.aim == aimEdge {
		dst = s.appendForwarded(dst)
	}
	return append(dst, '\r', '\n')
}

func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, value...)
	return append(dst, '\r', '\n')
}

// appendForwarded tells the service what only the edge saw.
func (s *session) appendForwarded(dst []byte) []byte {
	host, _, err := net.SplitHostPort(s.conn.RemoteAddr().String())
	if err == nil {
		dst = appendField(dst, "X-Forwarded-For: ", host)
	}
	dst = appendField(dst, "X-Forwarded-Host: ", view(s.req.Host.Of(s.head)))
	return append(dst, "X-Forwarded-Proto: http\r\n"...)
}
