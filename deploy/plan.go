package deploy

import (
	"maps"
	"slices"

	"github.com/shoalrun/shoal/fleet"
)

// Plan is the order in which services start: callees before callers. Services that call each other
// in a circle form one group, which starts together, so that no order can end in a deadlock.
type Plan struct {
	// Groups are in start order; the names within one are sorted.
	Groups [][]string

	callees map[string][]string
	callers map[string][]string
}

// NewPlan orders the services of manifests. Calls to services that are not among them do not count.
func NewPlan(manifests []fleet.Manifest) Plan {
	calls := map[string][]string{}
	for _, m := range manifests {
		calls[m.Service] = nil
	}
	for _, m := range manifests {
		for _, c := range m.Calls {
			if _, known := calls[c.Service]; known && c.Service != m.Service {
				calls[m.Service] = append(calls[m.Service], c.Service)
			}
		}
	}
	p := Plan{Groups: components(calls), callees: map[string][]string{}, callers: map[string][]string{}}
	for _, group := range p.Groups {
		p.link(group, calls)
	}
	return p
}

// link notes what a group calls outside itself. All its members wait for all of that, since they
// start together.
func (p *Plan) link(group []string, calls map[string][]string) {
	outside := map[string]bool{}
	for _, member := range group {
		for _, callee := range calls[member] {
			if !slices.Contains(group, callee) {
				outside[callee] = true
			}
		}
	}
	for _, member := range group {
		p.callees[member] = slices.Sorted(maps.Keys(outside))
		for callee := range outside {
			p.callers[callee] = append(p.callers[callee], member)
		}
	}
}

// Callees returns what must be ready before service starts.
func (p Plan) Callees(service string) []string { return p.callees[service] }

// Callers returns the services that wait for service, and stop before it.
func (p Plan) Callers(service string) []string { return p.callers[service] }

// components returns the strongly connected components of a graph, callees first (R. Tarjan,
// "Depth-first search and linear graph algorithms", 1972).
func components(calls map[string][]string) [][]string {
	t := tarjan{calls: calls, index: map[string]int{}, low: map[string]int{}, onStack: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		if t.index[name] == 0 {
			t.visit(name)
		}
	}
	return t.found
}

type tarjan struct {
	calls      map[string][]string
	index, low map[string]int // from 1
	stack      []string
	onStack    map[string]bool
	found      [][]string
}

func (t *tarjan) visit(v string) {
	t.index[v] = len(t.index) + 1
	t.low[v] = t.index[v]
	t.stack = append(t.stack, v)
	t.onStack[v] = true
	for _, w := range t.calls[v] {
		if t.index[w] == 0 {
			t.visit(w)
			t.low[v] = min(t.low[v], t.low[w])
		}
		if t.onStack[w] {
			t.low[v] = min(t.low[v], t.index[w])
		}
	}
	if t.low[v] == t.index[v] {
		t.pop(v)
	}
}

// pop takes the component whose root is v off the stack.
func (t *tarjan) pop(v string) {
	i := slices.Index(t.stack, v)
	group := slices.Clone(t.stack[i:])
	t.stack = t.stack[:i]
	for _, w := range group {
		t.onStack[w] = false
	}
	slices.Sort(group)
	t.found = append(t.found, group)
}
