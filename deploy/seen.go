package deploy

import (
	"slices"

	"github.com/shoalrun/shoal/fleet"
)

func (s *State) takeObserved(status fleet.InstanceStatus) {
	v, i := s.find(status.Instance)
	if i == nil {
		if status.State != fleet.Exited && status.State != fleet.Stopping {
			s.takeUnknown(status)
		}
		return
	}
	i.fresh, i.lost = true, false
	if i.failed || i.phase == planned || i.phase == dead {
		return
	}
	wasReady := i.ready()
	i.status = status
	switch {
	case i.leaving():
	case i.ready() && !wasReady:
		s.tell(v, fleet.PhaseReady, i.readyText(s.now))
	case status.State == fleet.Failed:
		s.fail(v, i)
	case status.State == fleet.Exited && i.assignment.Once && status.Service != "": // known: it did run
		v.migrate(i.status.Release)
		s.retire(v, i)
	case status.State == fleet.Exited:
		s.tell(v, fleet.PhaseWarn, i.id+" is gone from node "+i.node+" without having been stopped")
		s.drop(v, i)
	}
}

// takeResync takes a node's word for what it runs. What it does not name is probed, rather than given
// up: the list may be older than a Start that went another way.
func (s *State) takeResync(in Resync) {
	for _, status := range in.All {
		s.takeListed(status)
	}
	for _, v := range s.services {
		for _, i := range v.instances {
			named := slices.ContainsFunc(in.All, func(o fleet.InstanceStatus) bool { return o.Instance == i.id })
			if !named && i.node == in.Node {
				i.probe = s.now
			}
		}
	}
}

func (s *State) takeStarted(in Started) {
	v, i := s.find(in.Instance)
	if i == nil {
		return
	}
	i.pending = false
	i.probe = s.now.Add(s.probeEvery)
	if in.Err == nil {
		i.restart = retry{}
		return
	}
	i.untold = true
	i.restart.fail(s.now)
	if i.restart.failures == 1 {
		s.tell(v, fleet.PhaseWarn, i.id+" could not be started and is tried again: "+in.Err.Error())
	}
	if i.phase == running && i.status.State == fleet.Starting {
		i.status.Failure = in.Err.Error()
	}
}

func (s *State) takeGone(in Gone) {
	v, i := s.find(in.Instance)
	if i == nil {
		return
	}
	i.pending = false
	if in.Err != nil {
		i.restart.fail(s.now)
		if i.restart.failures == 1 {
			s.tell(v, fleet.PhaseWarn, i.id+" could not be stopped and is tried again: "+in.Err.Error())
		}
		return
	}
	if !i.assignment.Once {
		s.tell(v, fleet.PhaseStop, i.id+" stopped")
	}
	if i.failed && i.generation == v.generation {
		s.move(i, dead)
		return
	}
	s.drop(v, i)
}

func (s *State) takeProbed(in Probed) {
	_, i := s.find(in.Instance)
	if i == nil {
		return
	}
	i.probing = false
	if in.Err == nil && !i.fresh && !i.pending {
		in.Status.Instance = in.Instance
		s.takeObserved(in.Status)
	}
}

func (s *State) takeApplied(in Applied) {
	sent := s.sent
	s.sent = nil
	if in.Err != nil {
		for _, put := range sent.Put {
			s.doubt[put.Name] = append(s.doubt[put.Name], put)
		}
		for _, name := range sent.Remove {
			s.doubt[name] = append(s.doubt[name], fleet.Service{})
		}
		s.applying.fail(s.now)
		if s.applying.failures == 1 {
			s.tell(nil, fleet.PhaseWarn, "a change could not be applied and is tried again: "+in.Err.Error())
		}
		return
	}
	s.applying = retry{}
	for _, put := range sent.Put {
		s.acked[put.Name] = put
		delete(s.doubt, put.Name)
	}
	for _, name := range sent.Remove {
		delete(s.acked, name)
		delete(s.doubt, name)
	}
}
