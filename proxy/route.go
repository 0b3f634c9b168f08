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
	instance string // a peer's choice, which is in this process or nowhere; empty: ours
	exact    bool   // host is a service's own name, not what a caller's code calls it
	via      string // SERVICE/ROUTE that hands the call over, where a peer says so; empty: nobody does
}

func (to target) String() string {
	if to.port == 0 {
		return to.host
	}
	return net.JoinHostPort(to.host, strconv.Itoa(int(to.port)))
}

// route is all that a table knows of one caller calling one target: resolved once, so that a call
// only looks.
type route struct {
	caller, callee string
	asked          target // what it was resolved for
	name           string // of the declared route; `orders/beta` where orders hands the call over
	via            string // the service that hands the call over; empty: the callee was called itself
	choices        []choice
	mirror         *mirror // who gets copies of calls; nil: nobody
	handed         *choice // at a peer: what the route that hands the call over matches
	kind           fleet.Kind
	port           fleet.Port
	places         []*place
	service        *service // nil: outside the fleet
	load           *load
	edge           *observe.Edge
	faults         []fault // an operator's
	flow           *flow   // of the callee's rate; nil: none

	refusal    *refusal       // the caller may not, whatever it sends
	rules      []rule         // narrow what it may send; each must hold
	learned    *fleet.Learned // let through although undeclared
	permission string         // by which declarations it passes, in words
	timeout    time.Duration  // 0: none
	declared   bool           // a manifest says timeout
	endless    bool           // no timeout may hold
	idle       time.Duration

	policy   fleet.BalancePolicy
	key      *fleet.Balance // where requests have the key of the policy hash; nil: another policy
	attempts int            // that an application may see
	hedge    time.Duration  // 0: never

	timeoutText string // timeout in milliseconds, as applications are told

	madeOf []*service // all that it was resolved from; nil: it holds for its table only
}

// finish resolves what depends on where a route leads in the end.
func (t *table) finish(r *route) {
	r.timeoutText = strconv.FormatInt(units(r.timeout, time.Millisecond), 10)
	r.edge = t.p.cfg.Recorder.Edge(r.caller, r.counted(), r.name, r.port.Protocol)
	r.faults = t.faults(r)
	r.flow = t.flow(r)
}

// undeclared stands, in the edges, for every name that an application made up: each name an edge of its
// own would let it fill the metrics.
const undeclared = "undeclared"

// counted is the callee as the edges name it; records have the full name.
func (r *route) counted() string {
	if r.refusal != nil && (r.refusal.reason == fleet.ReasonUnknownService || r.refusal.reason == fleet.ReasonUndeclaredEgress) {
		return undeclared
	}
	return r.callee
}

func (t *table) resolve(caller string, to target) *route {
	r := &route{caller: caller, callee: to.String(), asked: to, name: fleet.DefaultRoute, kind: fleet.KindCall, idle: t.p.cfg.Idle, attempts: maxSeen}
	r.port = fleet.Port{Number: to.port, Protocol: fleet.TCP}
	if to.via != "" {
		t.handed(r, to)
		return r
	}
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
	t.toPlaces(r, s, to)
	r.port.Protocol = fleet.HTTP
	if r.refusal = t.choosePort(r, s, to.port); r.refusal != nil {
		return
	}
	if r.port.Protocol == fleet.TCP {
		r.kind = fleet.KindStream
	}
	if r.refusal = t.permit(r, s); r.refusal != nil {
		return
	}
	r.permission = t.permission(r, s)
	if !s.Deployed {
		r.refusal = notRunning(s.Name)
	}
	t.bound(r, s)
	if r.refusal == nil && to.instance == "" && r.port.Protocol != fleet.TCP {
		r.choices = t.choices(r, s)
	}
}

func (t *table) toPlaces(r *route, s *service, to target) {
	r.callee, r.service, r.load, r.places = s.Name, s, s.load, s.places
	r.spread(&s.Manifest.Balance)
	if to.instance != "" {
		r.places = slices.DeleteFunc(slices.Clone(s.places), func(pl *place) bool { return pl.instance != to.instance || pl.peer() })
	}
}

// spread takes over how the callee wants its calls spread.
func (r *route) spread(b *fleet.Balance) {
	r.policy, r.key = b.Policy, nil
	if b.Policy == fleet.Hash {
		r.key = b
	}
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
		r.timeout, r.declared, r.endless = 0, false, true
	}
}

func declaredBounds(r *route, c *service, callee string) {
	for _, call := range c.Manifest.Calls {
		if call.Service != callee {
			continue
		}
		if call.Timeout > 0 {
			r.timeout, r.declared = time.Duration(call.Timeout), true
		}
		if call.Idle > 0 {
			r.idle = time.Duration(call.Idle)
		}
		if call.Attempts > 0 {
			r.attempts = call.Attempts
		}
		r.hedge = time.Duration(call.Hedge)
	}
}

// toNeed routes to something outside the fleet that the environment binds.
func (t *table) toNeed(r *route, n *fleet.Need) {
	r.callee, r.kind = r.caller+"."+n.Name, fleet.KindEgress
	if n.Bound == "" {
		r.refusal = unboundNeed(r.caller, t.services[r.caller], n)
		return
	}
	r.permission = entry(t.services[r.caller], "needs", "."+n.Name) + " needs " + n.Name + ", bound to " + n.Bound
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
	r.places = []*place{{endpoint: t.p.endpointLocked(id), address: address, limit: noLimit}}
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
	for i, e := range c.Manifest.Egress {
		if (e.Port == 0 || e.Port == to.port) && matchesHost(e.Host, to.host) {
			r.permission = entry(c, "egress", fmt.Sprintf("[%d]", i)) + " declares egress to " + e.Host
			return nil
		}
	}
	if !c.Learn {
		return undeclaredEgress(r.caller, c, to)
	}
	r.permission = "no declaration of " + r.caller + ": learning lets it pass"
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
