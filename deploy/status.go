package deploy

import (
	"slices"

	"github.com/shoalrun/shoal/fleet"
)

// Status returns what is known of all services, sorted by name.
func (s *State) Status() []fleet.ServiceStatus {
	all := make([]fleet.ServiceStatus, 0, len(s.services))
	for _, v := range s.sorted() {
		all = append(all, s.status(v))
	}
	return all
}

func (s *State) status(v *service) fleet.ServiceStatus {
	t := &v.target
	status := fleet.ServiceStatus{Name: v.name, Owner: t.Manifest.Owner, State: s.state(v), Release: t.Release.ID,
		Commit: t.Release.Commit, Dirty: t.Release.Dirty, Origin: t.Origin, Source: t.Source, Mode: t.Mode,
		Ports: t.Manifest.Ports, Failure: v.failure(), LastLog: v.lastLog(), Attached: v.attached, Debug: v.debug,
		Instances: []fleet.InstanceStatus{}}
	if i := v.first(func(i *instance) bool { return i.phase == serving && i.worker() == "" }); i != nil {
		status.Release, status.Commit, status.Dirty = i.status.Release, i.assignment.Release.Commit, i.assignment.Release.Dirty
	}
	for _, i := range v.instances {
		if i.phase != planned {
			status.Instances = append(status.Instances, s.report(i))
		}
	}
	return status
}

// report is the instance's status as the node told it, and what the hub knows beyond.
func (s *State) report(i *instance) fleet.InstanceStatus {
	r := i.status
	r.LastLog = slices.Clone(r.LastLog)
	switch {
	case i.leaving() && !i.failed:
		r.State = fleet.Stopping
	case !s.there(i.node) && !i.failed:
		r.State, r.Failure = fleet.Unhealthy, "its node "+i.node+" is away"
	}
	return r
}

// state sums a service up.
func (s *State) state(v *service) fleet.ServiceState {
	n, known := s.wanted(v)
	switch {
	case v.attached != "" && !v.gone && !s.stopping:
		return fleet.ServiceReady
	case v.target.External != "" && !v.gone && !s.stopping:
		return fleet.ServiceExternal
	case known && n == 0 && len(v.instances) == 0:
		return fleet.ServiceStopped
	case known && n == 0:
		return fleet.ServiceStopping
	}
	ready := len(v.each("", func(i *instance) bool { return i.ready() && s.there(i.node) && s.serves(v, i) }))
	switch {
	case ready == 0:
		return s.stateOfNone(v)
	case v.building || known && s.underWay(v) && v.up:
		return fleet.ServiceUpdating
	case known && s.underWay(v):
		return fleet.ServiceStarting
	case ready < n || !v.workersReady():
		return fleet.ServiceDegraded
	}
	return fleet.ServiceReady
}

// stateOfNone sums up a service of which no instance is healthy.
func (s *State) stateOfNone(v *service) fleet.ServiceState {
	switch {
	case v.building:
		return fleet.ServiceBuilding
	case s.failedFinally(v):
		return fleet.ServiceFailed
	case v.waits != nil:
		return fleet.ServiceWaiting
	case slices.ContainsFunc(v.instances, func(i *instance) bool { return i.phase == serving && i.status.Failure != "" }):
		return fleet.ServiceFailed
	}
	return fleet.ServiceStarting
}

// serves tells whether every node knows that i takes calls.
func (s *State) serves(v *service, i *instance) bool {
	return i.phase == serving && (v.attached != "" || slices.ContainsFunc(s.acked[v.name].Endpoints,
		func(e fleet.Endpoint) bool { return e.Instance == i.id && e.State == fleet.Serving }))
}

// underWay tells whether a start, a rollout or a stop is going on.
func (s *State) underWay(v *service) bool {
	n, known := s.wanted(v)
	if !known || v.building {
		return v.buildError == nil
	}
	if n == 0 && len(v.instances) > 0 {
		return true
	}
	for _, i := range v.instances {
		waiting := i.begun() && (i.worker() == "" || i.assignment.Once || i.phase == planned || i.status.State == fleet.Starting)
		replaced := i.generation < v.generation && !v.defeated()
		if s.outOfReach(i) {
			continue
		}
		if !i.failed && (waiting || replaced) || i.leaving() {
			return true
		}
	}
	return false
}

// workersReady tells whether each worker runs.
func (v *service) workersReady() bool {
	return !slices.ContainsFunc(v.instances, func(i *instance) bool {
		return i.worker() != "" && !i.assignment.Once && !i.ready()
	})
}

// settled tells whether nothing is under way in the whole fleet.
func (s *State) settled() bool {
	for _, v := range s.services {
		if !s.settledService(v) {
			return false
		}
	}
	return s.sent == nil && s.applying.failures == 0
}

// settledService tells whether v is as it was asked to be, or has failed for good, and every node
// knows it.
func (s *State) settledService(v *service) bool {
	if s.underWay(v) || v.described() && !s.agreed(v) {
		return false
	}
	for _, i := range v.instances {
		if i.phase != dead && !i.failed && !i.ready() && !s.outOfReach(i) {
			return false
		}
	}
	return true
}

// culprit is the instance that explains why v is not well, or nil: one of the newest release that was
// given up, else one that is in trouble now.
func (v *service) culprit() *instance {
	if i := v.first(func(i *instance) bool { return i.failed && i.generation == v.generation }); i != nil {
		return i
	}
	return v.first(func(i *instance) bool { return i.phase != dead && i.status.Failure != "" })
}

func (v *service) first(keep func(*instance) bool) *instance {
	if i := slices.IndexFunc(v.instances, keep); i >= 0 {
		return v.instances[i]
	}
	return nil
}

// failure says in a line why v is not well, or nothing.
func (v *service) failure() string {
	if v.buildError != nil {
		if v.unbuilt {
			return "its change is not in force: " + v.buildError[0]
		}
		return "build failed: " + v.buildError[len(v.buildError)-1]
	}
	i := v.culprit()
	if i == nil {
		return ""
	}
	old := v.first(v.oldServing)
	if i.failed && old != nil {
		return "release " + short(i.status.Release) + " failed, " + short(old.status.Release) + " serves on: " + i.label() + i.status.Failure
	}
	return i.label() + i.status.Failure
}

// lastLog returns the last lines of what failure speaks of.
func (v *service) lastLog() []string {
	if v.buildError != nil {
		return last(v.buildError, keptLines)
	}
	if i := v.culprit(); i != nil {
		return last(i.status.LastLog, keptLines)
	}
	return nil
}
