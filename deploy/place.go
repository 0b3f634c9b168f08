package deploy

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Node is a machine that instances can be placed on.
type Node struct {
	Name string
	Mode fleet.Mode // how it joins sidecars to processes; empty: as the target says
}

// nodePatience is how long a node may be away until what it ran is started elsewhere. A restart and an
// upgrade take less.
const nodePatience = 30 * time.Second

// nodeState is what is known of one node.
type nodeState struct {
	mode fleet.Mode
	gone time.Time // since when it has been away; zero: it is connected
}

// takeNodes takes which nodes are connected. One that is not named any more is away; only one that was
// removed is forgotten, and with it what ran there.
func (s *State) takeNodes(in Nodes) {
	for _, name := range in.Removed {
		s.takeRemoved(name)
	}
	for name, n := range s.nodes {
		if n.gone.IsZero() && !slices.ContainsFunc(in.Live, func(o Node) bool { return o.Name == name }) {
			n.gone = s.now
		}
	}
	for _, n := range in.Live {
		s.nodes[n.Name] = &nodeState{mode: n.Mode}
	}
}

// takeRemoved forgets a node that left the fleet, and what ran there: nobody can stop that any more.
func (s *State) takeRemoved(node string) {
	delete(s.nodes, node)
	for _, v := range s.sorted() {
		for _, i := range slices.Clone(v.instances) {
			if i.node == node {
				s.tell(v, fleet.PhaseWarn, i.id+" is forgotten: node "+node+" is not part of the fleet any more")
				s.drop(v, i)
			}
		}
	}
}

// mode is how a node joins sidecars to processes.
func (s *State) mode(node string, otherwise fleet.Mode) fleet.Mode {
	if n := s.nodes[node]; n != nil && n.mode != "" {
		return n.mode
	}
	return otherwise
}

// place chooses the node of one more instance: among those that the target allows and that are there, one
// with few instances of the service, then one where the service ran before, since its state is there,
// then the emptiest.
// A worker comes to where its service is.
func (s *State) place(v *service, worker string) string {
	allowed := s.allowed(v)
	there := slices.DeleteFunc(slices.Clone(allowed), func(name string) bool { return !s.there(name) })
	if len(there) == 0 {
		return allowed[0] // waits for it
	}
	own, all := s.census(v)
	if worker != "" {
		for node := range own {
			own[node] = -own[node]
		}
	}
	return slices.MinFunc(there, func(a, b string) int {
		return cmp.Or(
			cmp.Compare(own[a], own[b]),
			compareBool(!slices.Contains(v.nodes, a), !slices.Contains(v.nodes, b)),
			cmp.Compare(all[a], all[b]),
			compareBool(a != s.home, b != s.home),
			strings.Compare(a, b))
	})
}

// allowed names the nodes that v may run on; there is always one.
func (s *State) allowed(v *service) []string {
	switch {
	case v.target.Local:
		return []string{s.home}
	case len(v.target.Nodes) > 0:
		return v.target.Nodes
	}
	return slices.Sorted(maps.Keys(s.nodes))
}

// share is how many instances of v one node keeps. Those of a service that names its nodes are spread over
// them; others stay where they are.
func (s *State) share(v *service) int {
	n := max(1, v.target.Instances)
	there := 0
	for _, name := range v.target.Nodes {
		if s.there(name) {
			there++
		}
	}
	if there == 0 {
		return n
	}
	return (n + there - 1) / there
}

// there tells whether a node is connected. The hub's own node is started with it, or again.
func (s *State) there(node string) bool {
	n := s.nodes[node]
	return n != nil && (n.gone.IsZero() || len(s.nodes) == 1)
}

// census counts, by node, the instances of v's newest generation and those of every service.
func (s *State) census(v *service) (own, all map[string]int) {
	own, all = map[string]int{}, map[string]int{}
	for _, o := range s.services {
		for _, i := range o.instances {
			if i.phase == dead {
				continue
			}
			all[i.node]++
			if o == v && i.generation == v.generation && !i.leaving() && i.worker() == "" {
				own[i.node]++
			}
		}
	}
	return own, all
}

// remember notes where v runs, so that it comes back to its state: the nodes of its newest instances.
func (v *service) remember(node string) {
	at := slices.DeleteFunc(slices.Clone(v.nodes), func(n string) bool { return n == node })
	v.nodes = append([]string{node}, at[:min(len(at), maxRemembered-1)]...)
}

// maxRemembered bounds how many nodes are remembered of a service.
const maxRemembered = 16

// forsake retires what runs on a node that has been away for long, where another node can take over:
// a replacement is planned, and the old one is stopped once its node is back.
func (s *State) forsake(v *service) {
	if n, ok := s.wanted(v); !ok || n == 0 {
		return
	}
	for _, i := range slices.Clone(v.instances) {
		if !s.overdue(i.node) || i.leaving() || i.phase == dead || !slices.ContainsFunc(s.allowed(v), s.there) {
			continue
		}
		s.tell(v, fleet.PhaseWarn, i.id+" is given up: node "+i.node+" has been away for "+span(nodePatience)+"; another takes its place")
		s.retire(v, i)
	}
}

func (s *State) overdue(node string) bool {
	n := s.nodes[node]
	return n != nil && !n.gone.IsZero() && s.now.Sub(n.gone) >= nodePatience
}

// outOfReach tells whether i is on its way out and its node is not there to end it.
func (s *State) outOfReach(i *instance) bool { return i.leaving() && !s.there(i.node) }

// abandon forgets, where everything is to stop, what is on a node that is away. One that comes back is
// told to stop what nobody knows.
func (s *State) abandon(v *service) {
	if !s.stopping {
		return
	}
	for _, i := range slices.Clone(v.instances) {
		if i.phase == dead || s.there(i.node) {
			continue
		}
		s.tell(v, fleet.PhaseWarn, i.id+" may run on: node "+i.node+" is away; it is stopped when that is back")
		s.drop(v, i)
	}
}
