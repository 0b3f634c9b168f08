package deploy

import (
	"maps"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// supersede retires what an older wish began and did not finish: its instances never took a call.
func (s *State) supersede(v *service) {
	if _, ok := s.wanted(v); !ok {
		return
	}
	for _, i := range slices.Clone(v.instances) {
		if i.generation < v.generation && i.begun() && (i.worker() == "" || i.assignment.Once) {
			s.retire(v, i)
		}
	}
}

// create plans the instances that are missing: all at once where nothing serves yet, else one at a
// time beside the old ones. What has failed keeps its place, so that it is not tried again.
func (s *State) create(v *service) {
	n, ok := s.wanted(v)
	if !ok || v.beforeFailed() {
		return
	}
	current := v.each("", func(i *instance) bool {
		return i.generation == v.generation && (i.failed || !i.leaving())
	})
	missing := n - len(current)
	if len(v.each("", v.oldServing)) > 0 {
		if v.defeated() {
			return
		}
		replaced := func(i *instance) bool { return i.leaving() && i.served }
		missing = min(missing, 1-len(v.each("", (*instance).begun))-len(v.each("", replaced)))
	}
	for range missing {
		s.add(v, "")
	}
}

// before plans the release's `before`. One of an older release that was cut short must be gone first:
// two never run at once.
func (s *State) before(v *service) {
	n, ok := s.wanted(v)
	if ok && n > 0 && !v.migratedAlready() && len(v.jobs()) == 0 {
		s.add(v, beforeJob)
	}
}

// start starts what may start, and tells nodes again what they could not be told.
func (s *State) start(v *service) {
	for _, i := range v.instances {
		if i.pending || !i.restart.due(s.now) {
			continue
		}
		told := i.phase == running || i.phase == serving
		if told && i.untold || i.phase == planned && s.mayStart(v, i) {
			s.launch(v, i)
		}
	}
}

// mayStart tells whether i is placed, so that it may speak for its service from its first moment on,
// and what must come before it has come.
func (s *State) mayStart(v *service, i *instance) bool {
	return s.placed(v, i) && (i.assignment.Once || v.migratedAlready()) && s.open(v)
}

func (s *State) launch(v *service, i *instance) {
	i.pending, i.untold, i.fresh = true, false, true // the answer to a probe under way may be older
	s.do(Start{i.node, i.assignment})
	if i.phase != planned {
		return
	}
	i.started = s.now
	s.move(i, running)
	if i.assignment.Once {
		s.tell(v, fleet.PhaseBefore, i.assignment.Command)
		return
	}
	s.tell(v, fleet.PhaseStart, i.id)
}

// open tells whether v may start: what it calls is there, or will not come. An update need not wait.
func (s *State) open(v *service) bool {
	isServing := func(i *instance) bool { return i.phase == serving }
	if v.opened == v.generation || len(v.each("", isServing)) > 0 {
		return true
	}
	var waits, failed []string
	for _, callee := range s.plan.Callees(v.name) {
		there, final := s.callable(callee)
		switch {
		case !there && final:
			failed = append(failed, callee)
		case !there:
			waits = append(waits, callee)
		}
	}
	if len(waits) > 0 {
		if v.waits == nil {
			s.tell(v, fleet.PhaseWait, "for "+strings.Join(waits, ", "))
		}
		v.waits = waits
		return false
	}
	if len(failed) > 0 {
		s.tell(v, fleet.PhaseWarn, "starts although "+strings.Join(failed, ", ")+" failed")
	}
	v.opened, v.waits = v.generation, nil
	return true
}

// callable tells whether a callee can be called, and, where it cannot, whether that is final. A service
// that is not asked to run counts as there: nobody can wait for it.
func (s *State) callable(name string) (there, final bool) {
	v := s.services[name]
	if v == nil || v.attached != "" || v.target.External != "" || v.target.Stopped || v.gone || s.stopping {
		return true, true
	}
	up := func(i *instance) bool { return i.ready() && (i.phase == running || i.phase == serving) }
	if len(v.each("", up)) > 0 {
		return true, true
	}
	return false, s.failedFinally(v)
}

// shift lets what is ready take calls. Old instances that it replaces are surplus from then on.
func (s *State) shift(v *service) {
	s.unshift(v)
	for _, i := range v.each("", (*instance).begun) {
		if i.phase != running || !i.ready() || i.failed {
			continue
		}
		if old := v.each("", v.oldServing); len(old) > 0 && i.generation == v.generation {
			s.tell(v, fleet.PhaseShift, i.id+" takes over from "+old[0].id)
		}
		i.served = true
		s.move(i, serving)
	}
}

// unshift takes a shift back, if what took over fell before the old instance was stopped.
func (s *State) unshift(v *service) {
	n, ok := s.wanted(v)
	fallen := v.each("", func(i *instance) bool { return i.phase == serving && !i.ready() })
	firm := v.each("", func(i *instance) bool { return i.phase == serving && i.ready() })
	old := v.each("", func(i *instance) bool { return i.phase == draining && i.ready() && i.generation < v.generation })
	if !ok || n == 0 || len(firm) > 0 || len(old) == 0 || len(fallen) == 0 {
		return
	}
	for _, i := range fallen {
		s.move(i, running)
	}
	for _, i := range old {
		s.move(i, serving)
	}
	s.tell(v, fleet.PhaseWarn, fallen[0].id+" fell right after it was ready; "+old[0].id+" serves on")
}

// workers replaces each worker after the service's own instances: the old one is gone before the
// new one starts.
func (s *State) workers(v *service) {
	n, ok := s.wanted(v)
	replaced := func(i *instance) bool { return i.generation < v.generation && i.served && i.phase != dead }
	if !ok || n == 0 || len(v.each("", replaced)) > 0 {
		return
	}
	if v.beforeFailed() || s.failedFinally(v) {
		s.dropPlanned(v)
		return
	}
	for _, i := range slices.Clone(v.instances) {
		_, known := v.target.Workers[i.worker()]
		if i.worker() != "" && !i.assignment.Once && (i.generation < v.generation || !known) {
			s.retire(v, i)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.target.Workers)) {
		if len(v.each(name, anyInstance)) == 0 {
			s.add(v, name)
		}
	}
}

func anyInstance(*instance) bool { return true }

// probe asks after instances that were not heard of for a while.
func (s *State) probe(v *service) {
	for _, i := range v.instances {
		if i.watched() && !s.now.Before(i.probe) {
			i.probing, i.fresh = true, false
			i.probe = s.now.Add(s.probeEvery)
			s.do(Probe{i.node, i.id})
		}
	}
}
