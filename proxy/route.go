package proxy

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// target is what a caller asks for, before a table says what that means.
type target struct {
	host     string // a name, or an IP literal
	port     uint16 // 0: the default port
	instance string // a peer's choice; empty: ours
	exact    bool   // host is a service's own name, not what a caller's code calls it
}

func (to target) String() string {
	if to.port == 0 {
		return to.host
	}
	return net.JoinHostPort(to.host, strconv.Itoa(int(to.port)))
}

type routeKey struct {
	caller string
	to     target
}

// defaultRoute names the only route that a manifest can declare so far.
const defaultRoute = "default"

// route is all that a table knows of one caller calling one target: resolved once, so that a call
// only looks.
type route struct {
	caller, callee string
	kind           fleet.Kind
	port           fleet.Port
	places         []*place
	service        *service // nil: outside the fleet
	load           *load
	edge           *observe.Edge

	refusal *refusal       // the caller may not, whatever it sends
	rules   []fleet.Allow  // narrows what it may send; nil: nothing
	learned *fleet.Learned // let through although undeclared
	timeout time.Duration  // 0: none
	idle    time.Duration
}

// maxRoutes bounds what one table keeps: names that applications make up must not fill the memory.
const maxRoutes = 16 << 10

// route returns what the table knows of caller calling to; always the same for the same arguments.
func (t *table) route(caller string, to target) *route {
	key := routeKey{caller, to}
	if r, ok := t.routes.Load(key); ok {
		return r.(*route)
	}
	r := t.resolve(caller, to)
	r.edge = t.p.cfg.Recorder.Edge(r.caller, r.callee, defaultRoute, r.port.Protocol)
	if t.kept.Add(1) > maxRoutes {
		return r
	}
	kept, _ := t.routes.LoadOrStore(key, r)
	return kept.(*route)
}

func (t *table) resolve(caller string, to target) *route {
	r := &route{caller: caller, callee: to.String(), kind: fleet.KindCall, idle: t.p.cfg.Idle}
	r.port = fleet.Port{Number: to.port, Protocol: fleet.TCP}
	if s := t.meant(caller, to); s != nil {
		t.toService(r, s, to)
		return r
	}
	if n := t.need(caller, to.host, to.port); n != nil {
		t.toNeed(r, n)
		return r
	}
	if !strings.ContainsAny(to.host, ".:") || caller == fleet.Gateway || caller == fleet.Events {
		r.port.Protocol = fleet.HTTP
		r.refusal = t.unknownService(caller, to.host)
		return r
	}
	t.toEgress(r, to)
	return r
}

func (t *table) meant(caller string, to target) *service {
	if to.exact {
		return t.services[to.host]
	}
	return t.named(caller, to.host)
}

// toService routes to a service of the fleet.
func (t *table) toService(r *route, s *service, to target) {
	r.callee, r.service, r.load, r.places = s.Name, s, s.load, s.places
	r.port.Protocol = fleet.HTTP
	if to.instance != "" {
		r.places = slices.DeleteFunc(slices.Clone(s.places), func(pl *place) bool { return pl.instance != to.instance })
	}
	if r.refusal = t.choosePort(r, s, to.port); r.refusal != nil {
		return
	}
	if r.port.Protocol == fleet.TCP {
		r.kind = fleet.KindStream
	}
	if r.refusal = t.permit(r, s); r.refusal != nil {
		return
	}
	if !s.Deployed {
		r.refusal = notRunning(s.Name)
	}
	t.bound(r, s)
}

// choosePort finds the port that a call means (FOUNDATIONS, names, addresses, ports).
func (t *table) choosePort(r *route, s *service, port uint16) *refusal {
	if p, ok := s.Manifest.Port(port); ok && port != 0 {
		r.port = p
		return nil
	}
	if port == 0 || port == 80 {
		p, ok := s.Manifest.DefaultPort()
		if !ok {
			return ambiguousPort(s)
		}
		r.port = p
		return nil
	}
	r.port.Number = port
	if port == 443 {
		return tlsToMesh(s, t.services[r.caller])
	}
	return unknownPort(s, port)
}

// permit says whether the caller may call s at all. Both sides have their word: the caller declares
// the call, and the callee may narrow who calls it.
func (t *table) permit(r *route, s *service) *refusal {
	switch {
	case r.caller == fleet.Operator || s.hub:
		return nil
	case r.caller == fleet.Gateway:
		if len(s.Manifest.Expose) == 0 {
			return notExposed(s)
		}
		return nil
	case r.caller == fleet.Events:
		r.rules = deliveries(s)
		if len(r.rules) == 0 {
			return notSubscribed(s)
		}
		return nil
	}
	if refused := t.declared(r, s); refused != nil {
		return refused
	}
	return allowed(r, s)
}

// deliveries are the requests that a service subscribed to.
func deliveries(s *service) []fleet.Allow {
	var rules []fleet.Allow
	for _, sub := range s.Manifest.Subscribes {
		rules = append(rules, fleet.Allow{Caller: fleet.Events, Methods: []string{sub.Method}, Paths: []string{sub.Path}})
	}
	return rules
}

func (t *table) declared(r *route, s *service) *refusal {
	c := t.services[r.caller]
	if c == nil {
		return undeclaredCall(r.caller, nil, s.Name)
	}
	for _, call := range c.Manifest.Calls {
		if call.Service == s.Name {
			return nil
		}
	}
	if !c.Learn {
		return undeclaredCall(r.caller, c, s.Name)
	}
	r.learned = &fleet.Learned{Service: c.Name, Section: "calls", Entry: s.Name}
	return nil
}

func allowed(r *route, s *service) *refusal {
	if s.Manifest.Allow == nil {
		return nil
	}
	for _, a := range s.Manifest.Allow {
		if a.Caller != r.caller {
			continue
		}
		if len(a.Methods) == 0 && len(a.Paths) == 0 {
			r.rules = nil
			return nil
		}
		r.rules = append(r.rules, a)
	}
	if len(r.rules) == 0 {
		return notAllowed(r.caller, s, "")
	}
	if r.port.Protocol == fleet.TCP {
		r.rules = nil // a tcp port has neither methods nor paths
	}
	return nil
}

// bound sets the deadlines of a call (FOUNDATIONS, calls).
func (t *table) bound(r *route, s *service) {
	if r.port.Protocol == fleet.HTTP {
		r.timeout = t.p.cfg.Timeout
	}
	c := t.services[r.caller]
	if c != nil {
		declaredBounds(r, c, s.Name)
	}
	if s.Debug || c != nil && c.Debug || r.port.Protocol == fleet.TCP {
		r.timeout = 0
	}
}

func declaredBounds(r *route, c *service, callee string) {
	for _, call := range c.Manifest.Calls {
		if call.Service != callee {
			continue
		}
		if call.Timeout > 0 {
			r.timeout = time.Duration(call.Timeout)
		}
		if call.Idle > 0 {
			r.idle = time.Duration(call.Idle)
		}
	}
}

// toNeed routes to something outside the fleet that the environment binds.
func (t *table) toNeed(r *route, n *fleet.Need) {
	r.callee, r.kind = r.caller+"."+n.Name, fleet.KindEgress
	if n.Bound == "" {
		r.refusal = unboundNeed(r.caller, t.services[r.caller], n)
		return
	}
	t.outside(r, n.Bound)
}

// toEgress routes to a declared host outside the fleet.
func (t *table) toEgress(r *route, to target) {
	r.kind = fleet.KindEgress
	if to.port == 0 {
		to.port = 80
	}
	r.port.Number, r.callee = to.port, to.String()
	if r.refusal = t.declaredEgress(r, to); r.refusal == nil {
		t.outside(r, r.callee)
	}
}

func (t *table) outside(r *route, address string) {
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	id := "outside/" + address
	r.load = t.p.loadLocked(id)
	r.places = []*place{{endpoint: t.p.endpointLocked(id), address: address}}
	r.timeout = t.p.cfg.Timeout
}

func (t *table) declaredEgress(r *route, to target) *refusal {
	c := t.services[r.caller]
	if r.caller == fleet.Operator {
		return unknownHost(to.host)
	}
	if c == nil {
		return undeclaredEgress(r.caller, nil, to)
	}
	for _, e := range c.Manifest.Egress {
		if (e.Port == 0 || e.Port == to.port) && matchesHost(e.Host, to.host) {
			return nil
		}
	}
	if !c.Learn {
		return undeclaredEgress(r.caller, c, to)
	}
	r.learned = &fleet.Learned{Service: c.Name, Section: "egress", Entry: to.String()}
	return nil
}

// matchesHost compares a host with a declared one: a name, a literal, or `*.example.com`, which
// stands for any number of labels before example.com.
func matchesHost(declared, host string) bool {
	host = strings.TrimSuffix(host, ".")
	if suffix, ok := strings.CutPrefix(declared, "*"); ok {
		return len(host) > len(suffix) && strings.EqualFold(host[len(host)-len(suffix):], suffix)
	}
	return strings.EqualFold(declared, host)
}

// admits reports whether rules let a request pass. A path that a server could read as another one
// is never within a rule: `/public/../admin` is not under `/public/*`.
func admits(rules []fleet.Allow, method, path string) bool {
	path, _, _ = strings.Cut(path, "?")
	for i := range rules {
		a := &rules[i]
		if len(a.Methods) > 0 && !slices.Contains(a.Methods, method) {
			continue
		}
		if len(a.Paths) == 0 || canonical(path) && slices.ContainsFunc(a.Paths, func(want string) bool { return under(path, want) }) {
			return true
		}
	}
	return false
}

func under(path, want string) bool {
	if prefix, ok := strings.CutSuffix(want, "*"); ok {
		return strings.HasPrefix(path, prefix)
	}
	return path == want
}

// canonical: without dot segments, empty segments, backslashes, or their percent-encoded forms.
func canonical(path string) bool {
	if strings.Contains(path, "//") || strings.Contains(path, `\`) {
		return false
	}
	for _, c := range []string{"%2e", "%2E", "%2f", "%2F", "%5c", "%5C", "%00"} {
		if strings.Contains(path, c) {
			return false
		}
	}
	for seg := range strings.SplitSeq(path, "/") {
		if seg == "." || seg == ".." {
			return false
		}
	}
	return true
}

// deniedBy explains a request that the rules of a route do not admit.
func (r *route) deniedBy(method, path string) *refusal {
	if r.caller == fleet.Events {
		return notSubscribed(r.service)
	}
	return notAllowed(r.caller, r.service, fmt.Sprintf("%s %s", method, path))
}
