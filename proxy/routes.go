package proxy

import (
	"slices"
	"sync"
	"sync/atomic"
)

// routes are those that a table has resolved, of calls that came.
type routes struct {
	all sync.Map // routeKey -> *route
	n   atomic.Int64
}

// maxRoutes bounds what one table keeps: names that applications make up must not fill the memory.
const maxRoutes = 16 << 10

type routeKey struct {
	caller string
	to     target
}

// route returns what the table knows of caller calling to; always the same for the same arguments.
func (t *table) route(caller string, to target) *route {
	key := routeKey{caller, to}
	if r, ok := t.routes.all.Load(key); ok {
		return r.(*route)
	}
	r := t.inherited(key)
	if r == nil {
		r = t.resolve(caller, to)
		t.finish(r)
		r.madeOf = t.parts(r)
	}
	if t.routes.n.Add(1) > maxRoutes {
		return r
	}
	kept, _ := t.routes.all.LoadOrStore(key, r)
	return kept.(*route)
}

// inherited returns the route that the table before resolved, where that would come out the same now.
func (t *table) inherited(key routeKey) *route {
	v, ok := t.before.all.Load(key)
	if !ok {
		return nil
	}
	r := v.(*route)
	changed := func(s *service) bool { return t.services[s.Name] != s }
	if r.madeOf == nil || slices.ContainsFunc(r.madeOf, changed) || t.meant(key.caller, key.to) != r.service {
		return nil
	}
	return r
}

// parts are the services that a route of t was resolved from: its caller, its callee, and those to which the
// callee hands calls over; nil where it depends on more. A refusal does, since it tells what there is instead; what
// is outside the fleet, and what a peer hands over, is looked up anew.
func (t *table) parts(r *route) []*service {
	if r.service == nil || r.refusal != nil || r.handed != nil {
		return nil
	}
	all := []*service{r.service}
	if c := t.services[r.caller]; c != nil {
		all = append(all, c)
	}
	for i := range r.service.Manifest.Routes {
		declared := &r.service.Manifest.Routes[i]
		for _, to := range declared.Split {
			all = append(all, t.services[to.Service])
		}
		if declared.Mirror != nil {
			all = append(all, t.services[declared.Mirror.Service])
		}
	}
	if slices.Contains(all, nil) {
		return nil
	}
	return all
}
