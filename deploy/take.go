package deploy

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// take folds one input into the state. What follows from it is for advance to find.
func (s *State) take(in Input) {
	switch in := in.(type) {
	case Set:
		s.takeSet(in)
	case Update:
		s.want(in.Target, true)
		s.replan()
	case Building:
		s.takeBuilding(in)
	case BuildFailed:
		s.takeBuildFailed(in)
	case Restart:
		s.takeRestart(in)
	case Attach:
		s.service(in.Service).attached = in.Address
	case Detach:
		s.takeDetach(in)
	case Debug:
		s.takeDebug(in)
	case StopAll:
		s.takeStopAll()
	case Adopt:
		s.takeAdopt(in)
	case Observed:
		s.takeObserved(in.Status)
	case Resync:
		s.takeResync(in)
	case Nodes:
		s.takeNodes(in)
	case Applied:
		s.takeApplied(in)
	case Started:
		s.takeStarted(in)
	case Gone:
		s.takeGone(in)
	case Probed:
		s.takeProbed(in)
	}
}

// ask notes that something was asked for, whose fulfilment is to be told.
func (s *State) ask() {
	if s.asked.IsZero() {
		s.asked = s.now
	}
}

func (s *State) takeSet(in Set) {
	s.set, s.stopping = true, false
	for _, v := range s.services {
		v.gone = !slices.ContainsFunc(in.Targets, func(t Target) bool { return t.Manifest.Service == v.name })
	}
	for _, t := range in.Targets {
		s.want(t, false)
	}
	s.replan()
}

// want takes what is wanted of one service. again says that what has failed is to be tried again.
func (s *State) want(t Target, again bool) {
	v := s.service(t.Manifest.Service)
	v.gone, v.asked = false, true
	s.ask()
	if t.Release.ID == "" && t.External == "" && !t.Stopped {
		v.building = true
		if !v.built {
			v.target = t
		}
		return
	}
	same := v.built && sameRun(v.target, t)
	retried := again && v.defeated()
	v.building, v.buildError, v.target, v.built = false, nil, t, true
	if !same || retried {
		v.renew()
		s.recognise(v)
	}
}

// recognise takes instances that run already what is wanted now into the new generation: adopted
// ones, and those of a release that a newer one was to replace and could not.
func (s *State) recognise(v *service) {
	kept, share := map[string]int{}, s.share(v)
	for _, i := range v.instances {
		_, known := v.target.Workers[i.worker()]
		a := s.assignment(v, i.id, i.worker(), i.node)
		if i.failed || i.leaving() || i.assignment.Once || i.worker() != "" && !known || !i.runs(a) || !slices.Contains(s.allowed(v), i.node) {
			continue
		}
		if i.worker() == "" {
			if kept[i.node] == share {
				continue // to be spread
			}
			kept[i.node]++
		}
		i.untold = i.untold || i.assignment.Debug != a.Debug
		i.generation, i.assignment = v.generation, a
		if i.alive() {
			v.migrate(i.status.Release)
		}
	}
}

// runs tells whether i was started as a says. Of an adopted instance only the release is known.
func (i *instance) runs(a fleet.Assignment) bool {
	if i.assignment.Command == "" {
		return i.status.Release == a.Release.ID
	}
	b := i.assignment
	a.Debug, b.Debug = false, false
	return sameJSON(a, b)
}

// renew begins a new generation: all instances are to be replaced, and what failed is forgotten.
func (v *service) renew() {
	v.generation++
	v.instances = slices.DeleteFunc(v.instances, func(i *instance) bool { return i.phase == dead })
}

// sameRun tells whether two targets would run the same: what else differs is the snapshot's alone.
func sameRun(a, b Target) bool {
	run := func(t Target) Target {
		t.Instances, t.Origin, t.Source, t.Learn, t.Manifest.Owner = 0, "", "", false, ""
		t.Release.Commit, t.Release.Dirty, t.Release.Ignored = "", false, nil
		return t
	}
	return sameJSON(run(a), run(b))
}

// sameJSON compares values by their form on disk, in which nil and empty are one.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

func (s *State) takeStopAll() {
	s.stopping = true
	for _, v := range s.services {
		v.asked = true
		v.building = false // a build under way was given up, and nothing will come of it
	}
	s.ask()
}

// takeDetach leaves an address alone that has taken the place from the one that leaves.
func (s *State) takeDetach(in Detach) {
	if v := s.service(in.Service); v.attached == in.Address {
		v.attached = ""
	}
}

func (s *State) takeBuilding(in Building) {
	v := s.service(in.Service)
	v.building, v.buildError = true, nil
	s.ask()
}

func (s *State) takeBuildFailed(in BuildFailed) {
	v := s.service(in.Service)
	v.building = false
	v.buildError, v.unbuilt = lines(in.Text), in.Unbuilt
	s.ask()
	s.tell(v, fleet.PhaseFailed, strings.Join(append([]string{v.failure()}, last(v.buildError, shownLines)...), "\n"))
}

func (s *State) takeRestart(in Restart) {
	s.ask()
	for _, name := range in.Services {
		if v := s.services[name]; v != nil && v.built {
			v.renew()
		}
	}
}

func (s *State) takeDebug(in Debug) {
	v := s.service(in.Service)
	v.debug = in.On
	for _, i := range v.instances {
		if i.assignment.Debug != in.On {
			i.assignment.Debug = in.On
			i.untold = i.phase != planned
		}
	}
}

// replan orders the services anew. Those that are to vanish keep their place until they have.
func (s *State) replan() {
	var all []fleet.Manifest
	for _, v := range s.sorted() {
		m := v.target.Manifest
		m.Service = v.name
		all = append(all, m)
	}
	s.plan = NewPlan(all)
}

// equal compares what two snapshots say of a service.
func equal(a, b fleet.Service) bool {
	a.Version, a.Index, b.Version, b.Index = 0, 0, 0, 0
	a.Faults, b.Faults = nil, nil // not deploy's
	return reflect.DeepEqual(a, b)
}
