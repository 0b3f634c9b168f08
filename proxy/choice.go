package proxy

import (
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// fields are a request as stages look at it, whatever protocol carries it.
type fields interface {
	// field returns the value of the nth field (from 0) of a lower-case name. It may be a view of a buffer.
	field(name string, nth int) (value string, ok bool)
	// copy returns a copy of the whole request, or nil where not all of it is here.
	copy() *request
}

// choice is one declared route as one caller's table has it: what it matches, and where that leads.
type choice struct {
	path    string
	prefix  bool
	methods []string
	headers []fleet.HeaderMatch
	shares  []share // never empty; upto grows
	sticky  fleet.Sticky
	salt    uint64 // so that two splits do not part their callers alike
}

// share is a part of a split: of the numbers below the last share's upto, those from the share before.
type share struct {
	upto  uint32
	route *route
}

// choose returns the route that x takes: of the first choice that matches, or the default.
func (r *route) choose(x *exchange, f fields) *route {
	path := pathOf(x.obs.Path)
	for i := range r.choices {
		if c := &r.choices[i]; c.matches(x.obs.Method, path, f) {
			return c.pick(f)
		}
	}
	return r
}

// pathOf is a path without its query.
func pathOf(path string) string {
	if i := strings.IndexByte(path, '?'); i >= 0 {
		return path[:i]
	}
	return path
}

func (c *choice) matches(method, path string, f fields) bool {
	switch {
	case c.prefix && !strings.HasPrefix(path, c.path), !c.prefix && c.path != "" && path != c.path:
		return false
	case len(c.methods) > 0 && !slices.Contains(c.methods, method):
		return false
	}
	for i := range c.headers {
		if !has(f, &c.headers[i]) {
			return false
		}
	}
	return true
}

func has(f fields, want *fleet.HeaderMatch) bool {
	for nth := 0; ; nth++ {
		value, ok := f.field(want.Name, nth)
		if !ok {
			return false
		}
		if want.Value == "" || value == want.Value {
			return true
		}
	}
}

// pick takes one share: by chance, or the same for the same value.
func (c *choice) pick(f fields) *route {
	if len(c.shares) == 1 {
		return c.shares[0].route
	}
	total := c.shares[len(c.shares)-1].upto
	n, ok := c.stuck(f, total)
	if !ok {
		n = mrand.Uint32N(total)
	}
	for i := range c.shares {
		if n < c.shares[i].upto {
			return c.shares[i].route
		}
	}
	return c.shares[len(c.shares)-1].route
}

// stuck is the number that the request's own value stands for, where it carries one.
func (c *choice) stuck(f fields, total uint32) (uint32, bool) {
	value, ok := "", false
	switch {
	case c.sticky.Header != "":
		value, ok = f.field(c.sticky.Header, 0)
	case c.sticky.Cookie != "":
		value, ok = cookie(f, c.sticky.Cookie)
	}
	if !ok {
		return 0, false
	}
	return uint32(hash(c.salt, value) % uint64(total)), true
}

// hash is FNV-1a, mixed: every node parts callers alike, and its low bits depend on all of the value.
func hash(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd // the finaliser of MurmurHash3
	return h ^ h>>33
}

const hashSeed = 14695981039346656037

// cookie finds a cookie's value (RFC 6265 section 5.4), which HTTP/2 may send in a field of its own.
func cookie(f fields, name string) (string, bool) {
	for nth := 0; ; nth++ {
		all, ok := f.field("cookie", nth)
		if !ok {
			return "", false
		}
		for pair := range strings.SplitSeq(all, ";") {
			if k, v, ok := strings.Cut(strings.TrimLeft(pair, " "), "="); ok && k == name {
				return v, true
			}
		}
	}
}

// choices compiles the routes that s declares, for the calls of r.
func (t *table) choices(r *route, s *service) []choice {
	all := make([]choice, 0, len(s.Manifest.Routes))
	for i := range s.Manifest.Routes {
		declared := &s.Manifest.Routes[i]
		c := chosenBy(declared)
		c.shares = t.shares(r, s, declared)
		all = append(all, c)
	}
	return all
}

// chosenBy is the choice of a declared route, without what it leads to.
func chosenBy(r *fleet.Route) choice {
	c := choice{methods: r.Match.Methods, headers: r.Match.Headers, sticky: r.Sticky, salt: hash(hashSeed, r.Name)}
	c.path, c.prefix = strings.CutSuffix(r.Match.Path, "*")
	return c
}

// shares makes the routes that a declared one leads to. Of a split, a service that does not run gets
// nothing, as long as one runs.
func (t *table) shares(r *route, s *service, declared *fleet.Route) []share {
	split := declared.Split
	if len(split) == 0 {
		split = []fleet.Share{{Service: s.Name, Weight: 1}}
	}
	running := slices.DeleteFunc(slices.Clone(split), func(to fleet.Share) bool {
		other := t.services[to.Service]
		return to.Weight == 0 || other == nil || !other.Deployed
	})
	if len(running) == 0 {
		running = split
	}
	var all []share
	upto := uint32(0)
	for _, to := range running {
		upto += to.Weight
		all = append(all, share{upto, t.leaf(r, s, declared, to.Service)})
	}
	return all
}

// leaf is the route of the calls of r that a declared route of s takes to one service.
func (t *table) leaf(r *route, s *service, declared *fleet.Route, to string) *route {
	leaf := *r
	leaf.name = declared.Name
	if to != s.Name {
		leaf.name = s.Name + "/" + declared.Name // the callee may have a route of that name, too
		t.handOver(&leaf, s, to)
	}
	leaf.limitTime(time.Duration(declared.Timeout))
	leaf.mirror = t.mirror(r, s, declared)
	t.finish(&leaf)
	return &leaf
}

// limitTime applies the timeout of a declared route: what the caller declares is kept where it is shorter.
func (r *route) limitTime(timeout time.Duration) {
	if timeout == 0 || r.endless || r.declared && r.timeout < timeout {
		return
	}
	r.timeout, r.declared = timeout, true
}

// handOver lets another service answer the calls of r in the place of s. Nobody gains access by it: s
// itself declares that it calls the other one, and the other's `allow`, where it has one, admits both s,
// which decides what goes there, and the caller, in whose name it goes. Routes of the other service do
// not apply: a call is handed over once.
func (t *table) handOver(r *route, s *service, to string) {
	r.via, r.callee = s.Name, to
	other := t.services[to]
	if other == nil {
		r.service, r.load, r.places, r.refusal = nil, nil, nil, t.unknownService(s.Name, to)
		return
	}
	r.service, r.load, r.places = other, other.load, other.places
	r.spread(&other.Manifest.Balance)
	r.permission += ", " + where(s, "routes") + " hands it over to " + to
	r.port, r.refusal = samePort(r.port, other)
	if r.refusal == nil {
		r.refusal = t.handsOver(r, s, other)
	}
	if r.refusal == nil && !other.Deployed {
		r.refusal = notRunning(to)
	}
}

// handsOver says whether s may hand the calls of r's caller over to other.
func (t *table) handsOver(r *route, s, other *service) *refusal {
	declares := func(c fleet.Call) bool { return c.Service == other.Name }
	if !slices.ContainsFunc(s.Manifest.Calls, declares) {
		return undeclaredCall(s.Name, s, other.Name)
	}
	for _, name := range []string{s.Name, r.caller} {
		if name == fleet.Operator {
			continue // passes by the socket
		}
		if refused := allowed(r, name, other); refused != nil {
			refused.detail = fmt.Sprintf("%s hands this call over to %s (%s). %s", s.Name, other.Name, where(s, "routes"), refused.detail)
			return refused
		}
	}
	return nil
}

// samePort finds the port of a service that stands for another's: of the same protocol, and the same
// number or the default one where there are several.
func samePort(p fleet.Port, s *service) (fleet.Port, *refusal) {
	if q, ok := s.Manifest.Port(p.Number); ok && q.Protocol == p.Protocol {
		return q, nil
	}
	if q, ok := s.Manifest.DefaultPort(); ok && q.Protocol == p.Protocol {
		return q, nil
	}
	for _, q := range s.Manifest.Ports {
		if q.Protocol == p.Protocol {
			return q, nil
		}
	}
	return p, unknownPort(s, p.Number)
}

// handed resolves a call that a peer's proxy hands over by the route to.via: the same rules hold here.
func (t *table) handed(r *route, to target) {
	r.callee, r.name = to.host, to.via
	r.port.Protocol = fleet.HTTP
	via, name, _ := strings.Cut(to.via, "/")
	r.via = via
	s, other := t.services[via], t.services[to.host]
	if s != nil && other != nil {
		r.handed = hands(&s.Manifest, name, to.host)
	}
	if r.handed == nil {
		r.refusal = notHandedOver(to)
		return
	}
	t.toPlaces(r, other, to)
	if r.refusal = t.choosePort(r, other, to.port); r.refusal != nil {
		return
	}
	if r.refusal = t.permit(r, s); r.refusal == nil {
		r.refusal = t.handsOver(r, s, other)
	}
	t.bound(r, s)
}

// hands finds the named route of a manifest, if it takes calls, or copies of them, to a service.
func hands(m *fleet.Manifest, name, to string) *choice {
	for i := range m.Routes {
		r := &m.Routes[i]
		goes := slices.ContainsFunc(r.Split, func(s fleet.Share) bool { return s.Service == to })
		if r.Name == name && (goes || r.Mirror != nil && r.Mirror.Service == to) {
			return new(chosenBy(r))
		}
	}
	return nil
}

// again finds r in a newer table, or nil where it is no longer there.
func (t *table) again(r *route) *route {
	parent := t.route(r.caller, r.asked)
	if r.name == parent.name {
		return parent
	}
	for i := range parent.choices {
		for _, s := range parent.choices[i].shares {
			if s.route.name == r.name && s.route.callee == r.callee {
				return s.route
			}
			if m := s.route.mirror; m != nil && m.route.name == r.name && m.route.callee == r.callee {
				return m.route
			}
		}
	}
	return nil
}
