package deploy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// surplus retires what is more than wanted: the old before the new, the unhealthy before the healthy.
func (s *State) surplus(v *service) {
	n, ok := s.wanted(v)
	if !ok {
		return
	}
	if n == 0 {
		s.clear(v)
		return
	}
	current := v.each("", func(i *instance) bool { return i.generation == v.generation && (i.begun() || i.phase == serving) })
	for _, i := range slices.Backward(current) {
		if len(current) > n && i.begun() {
			s.retire(v, i)
			current = current[:len(current)-1]
		}
	}
	active := v.each("", func(i *instance) bool { return i.phase == serving })
	slices.SortStableFunc(active, func(a, b *instance) int {
		return cmp.Or(cmp.Compare(a.generation, b.generation), compareBool(a.ready(), b.ready()))
	})
	for len(active) > n {
		s.retire(v, active[0])
		active = active[1:]
	}
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// clear retires a whole service, once nothing that calls it is stopping too.
func (s *State) clear(v *service) {
	v.up, v.opened, v.waits = false, 0, nil
	for _, name := range s.plan.Callers(v.name) {
		caller := s.services[name]
		if caller == nil {
			continue
		}
		n, ok := s.wanted(caller)
		if ok && n == 0 && slices.ContainsFunc(caller.instances, (*instance).alive) {
			return
		}
	}
	for _, i := range slices.Clone(v.instances) {
		if i.phase == dead {
			s.drop(v, i)
		}
		s.retire(v, i)
	}
}

// retire sends an instance on its way out: one that takes calls drains first.
func (s *State) retire(v *service, i *instance) {
	switch i.phase {
	case planned:
		s.drop(v, i)
	case running:
		s.move(i, stopping)
	case serving:
		s.tell(v, fleet.PhaseDrain, i.id)
		s.move(i, draining)
	}
}

// fail gives an instance up. What waited for a failed `before` will not start.
func (s *State) fail(v *service, i *instance) {
	i.failed = true
	text := append([]string{i.label() + i.status.Failure}, last(i.status.LastLog, shownLines)...)
	s.tell(v, fleet.PhaseFailed, strings.Join(text, "\n"))
	s.retire(v, i)
	if !i.assignment.Once || i.generation < v.generation {
		return
	}
	s.dropPlanned(v)
}

// dropPlanned forgets what has not been started.
func (s *State) dropPlanned(v *service) {
	for _, i := range slices.Clone(v.instances) {
		if i.phase == planned {
			s.drop(v, i)
		}
	}
}

// stop stops what drains, once every node knows, and what never took a call.
func (s *State) stop(v *service) {
	for _, i := range v.instances {
		if i.phase == draining && !s.takesCalls(v, i) {
			s.move(i, stopping)
		}
		if i.phase == stopping && !i.pending && i.restart.due(s.now) {
			i.pending = true
			s.do(Stop{i.node, i.id})
		}
	}
}
