package deploy

import (
	"maps"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// apply asks for whatever the snapshot lacks. One Apply is under way at a time: what is asked for
// meanwhile goes with the next, all services in one.
func (s *State) apply() {
	if s.sent != nil || !s.applying.due(s.now) {
		return
	}
	s.forget()
	var c fleet.Change
	var reasons []string
	for _, v := range s.sorted() {
		_, known := s.acked[v.name]
		if t := s.table(v); v.described() && (known || !v.gone) && !s.agreed(v) {
			c.Put = append(c.Put, t)
			reasons = append(reasons, reason(s.acked[v.name], t)+" "+v.name)
		}
	}
	for _, name := range s.listed() {
		if s.services[name] == nil {
			c.Remove = append(c.Remove, name)
			reasons = append(reasons, "remove "+name)
		}
	}
	if len(reasons) == 0 {
		return
	}
	c.Reason = strings.Join(reasons, ", ")
	s.sent = &c
	s.do(Apply{c})
}

// agreed tells whether every node knows what is to be known of v.
func (s *State) agreed(v *service) bool {
	return len(s.doubt[v.name]) == 0 && equal(s.acked[v.name], s.table(v))
}

// listed names the services of which nodes may know.
func (s *State) listed() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(s.acked)), maps.Keys(s.doubt))
	slices.Sort(names)
	return slices.Compact(names)
}

// table writes what the data path is to know of v.
func (s *State) table(v *service) fleet.Service {
	n, known := s.wanted(v)
	own := v.endpoints()
	t := fleet.Service{Name: v.name, Manifest: v.manifest(), Endpoints: own,
		Learn: v.target.Learn, Debug: v.debug, Serial: v.serial, Nodes: v.nodes}
	if a := v.address(); a != (fleet.Endpoint{}) && !v.gone && !s.stopping {
		t.Deployed = true
		t.Endpoints = append([]fleet.Endpoint{a}, own...)
		return t
	}
	t.Deployed = n > 0 || !known || len(own) > 0
	coming := (n > 0 || !known) && !s.failedFinally(v)
	t.Starting = coming && !slices.ContainsFunc(own, func(e fleet.Endpoint) bool { return e.State == fleet.Serving })
	return t
}

// address is the place outside Shoal that answers for v, if any.
func (v *service) address() fleet.Endpoint {
	switch {
	case v.attached != "":
		return fleet.Endpoint{Instance: v.name + "-attached", Address: v.attached}
	case v.target.External != "":
		return fleet.Endpoint{Instance: v.name + "-external", Address: v.target.External}
	}
	return fleet.Endpoint{}
}

// endpoints lists v's instances, by number. Workers and `before` are among them, so that their node may
// speak for v as long as they run, whatever becomes of the others. While an address has the service's
// place v's own instances go on and may call others, but take no calls.
func (v *service) endpoints() []fleet.Endpoint {
	var all []fleet.Endpoint
	for _, i := range v.instances {
		e := fleet.Endpoint{Instance: i.id, Node: i.node, Release: i.status.Release, Worker: i.worker(), State: fleet.Draining}
		switch {
		case i.phase == dead:
			continue
		case i.begun(), i.phase == stopping && !i.served:
			e.State = fleet.Placed
		case i.phase == serving && v.attached == "":
			e.State = fleet.Serving
			e.Unhealthy = i.status.State == fleet.Unhealthy
		}
		all = append(all, e)
	}
	return all
}

// manifest is the one of the release that takes calls. What instances of other releases may call is
// added to it while they are there: a new one before its shift, an old one until it is gone.
func (v *service) manifest() fleet.Manifest {
	base := v.target.Manifest
	isServing := func(i *instance) bool { return i.phase == serving }
	takers := v.each("", isServing)
	current := slices.ContainsFunc(takers, func(i *instance) bool { return i.generation == v.generation })
	if len(takers) > 0 && !current {
		base = takers[0].assignment.Manifest
	}
	var more []fleet.Manifest
	for _, i := range v.instances {
		if i.phase != dead && i.generation != v.generation {
			more = append(more, i.assignment.Manifest)
		}
	}
	if len(more) > 0 {
		more = append(more, v.target.Manifest)
	}
	return merge(base, more)
}

// merge adds to base the calls, needs, egress and topics that others declare and base does not.
func merge(base fleet.Manifest, others []fleet.Manifest) fleet.Manifest {
	if len(others) == 0 {
		return base
	}
	for _, o := range others {
		base.Calls = union(base.Calls, o.Calls, func(a, b fleet.Call) bool { return a.Service == b.Service })
		base.Needs = union(base.Needs, o.Needs, func(a, b fleet.Need) bool { return a.Name == b.Name })
		base.Egress = union(base.Egress, o.Egress, func(a, b fleet.HostPort) bool { return a == b })
		base.Publishes = union(base.Publishes, o.Publishes, func(a, b string) bool { return a == b })
		base.Topics = union(base.Topics, o.Topics, func(a, b fleet.Topic) bool { return a.Name == b.Name })
	}
	slices.SortFunc(base.Calls, func(a, b fleet.Call) int { return strings.Compare(a.Service, b.Service) })
	return base
}

// union returns a with what only b has. It never writes to a's memory.
func union[T any](a, b []T, same func(T, T) bool) []T {
	all := slices.Clone(a)
	for _, y := range b {
		if !slices.ContainsFunc(all, func(x T) bool { return same(x, y) }) {
			all = append(all, y)
		}
	}
	return all
}

// placed tells whether every node knows where i is to run, and so that its number is taken.
func (s *State) placed(v *service, i *instance) bool {
	return slices.ContainsFunc(s.acked[v.name].Endpoints, func(e fleet.Endpoint) bool { return e.Instance == i.id })
}

// takesCalls tells whether some node may still send i calls, or is just being told to.
func (s *State) takesCalls(v *service, i *instance) bool {
	lists := func(t fleet.Service) bool {
		return slices.ContainsFunc(t.Endpoints, func(e fleet.Endpoint) bool {
			return e.Instance == i.id && e.State == fleet.Serving
		})
	}
	if lists(s.acked[v.name]) || slices.ContainsFunc(s.doubt[v.name], lists) {
		return true
	}
	return s.sent != nil && slices.ContainsFunc(s.sent.Put, func(t fleet.Service) bool { return t.Name == v.name && lists(t) })
}

// reason names what a change does to a service, for the history.
func reason(old, now fleet.Service) string {
	had, ill := map[string]fleet.EndpointState{}, map[string]bool{}
	for _, e := range old.Endpoints {
		had[e.Instance], ill[e.Instance] = e.State, e.Unhealthy
	}
	var serves, placed, drains, health bool
	for _, e := range now.Endpoints {
		was, known := had[e.Instance]
		delete(had, e.Instance)
		if known && was == e.State {
			health = health || ill[e.Instance] != e.Unhealthy
			continue
		}
		serves = serves || e.State == fleet.Serving
		placed = placed || e.State == fleet.Placed
		drains = drains || e.State == fleet.Draining
	}
	switch {
	case serves && drains:
		return "shift"
	case serves:
		return "serve"
	case placed:
		return "place"
	case drains:
		return "drain"
	case len(had) > 0:
		return "withdraw"
	case health:
		return "health"
	}
	return "describe"
}
