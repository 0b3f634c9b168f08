package deploy

import (
	"slices"
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// takeAdopt takes over what an earlier hub left: the snapshot says what takes calls, the nodes what
// runs. Nothing is restarted: a later Set finds what matches its releases.
func (s *State) takeAdopt(in Adopt) {
	if in.Snapshot != nil {
		for _, t := range in.Snapshot.Services {
			s.adoptService(*t)
		}
	}
	for _, status := range in.Running {
		if _, i := s.find(status.Instance); i != nil {
			i.status, i.lost, i.probe = status, false, s.now.Add(s.probeEvery)
		}
		s.takeListed(status)
	}
	s.replan()
}

func (s *State) adoptService(t fleet.Service) {
	t.Version, t.Index = 0, 0
	s.acked[t.Name] = t
	v := s.service(t.Name)
	v.serial, v.nodes = t.Serial, t.Nodes
	v.debug = t.Debug
	v.target.Manifest = t.Manifest
	attached := slices.ContainsFunc(t.Endpoints, attachment)
	for _, e := range t.Endpoints {
		if e.Address != "" {
			continue // Set names an external one again
		}
		i := s.adopt(v, fleet.InstanceStatus{Instance: e.Instance, Service: t.Name, Node: e.Node, Release: e.Release,
			Worker: e.Worker, State: fleet.Starting})
		i.lost, i.probe = true, s.now
		switch e.State {
		case fleet.Serving:
			i.phase, i.served = serving, true
		case fleet.Draining:
			i.phase, i.served = draining, true
		}
		if attached && i.phase == draining {
			i.phase = serving
		}
	}
}

// attachment tells whether an address had a service's place. It does not get it again: who attached it
// left when the earlier hub did.
func attachment(e fleet.Endpoint) bool {
	return e.Address != "" && strings.HasSuffix(e.Instance, "-attached")
}

// adopt notes an instance that this engine did not start.
func (s *State) adopt(v *service, status fleet.InstanceStatus) *instance {
	if s.nodes[status.Node] == nil { // it speaks, or the snapshot names it
		s.nodes[status.Node] = &nodeState{gone: s.now}
	}
	i := &instance{id: status.Instance, node: status.Node, status: status, phase: running}
	i.assignment = fleet.Assignment{Instance: status.Instance, Service: v.name, Worker: status.Worker,
		Release: fleet.Release{ID: status.Release}, Manifest: v.target.Manifest, Mode: status.Mode,
		Once: status.Worker == beforeJob, Debug: v.debug}
	i.probe = s.now.Add(s.probeEvery)
	_, number, _ := cutLast(i.id, "-")
	if n, err := strconv.Atoi(number); err == nil {
		v.serial = max(v.serial, n)
	}
	v.instances = append(v.instances, i)
	s.moved = true
	return i
}

// cutLast is strings.Cut around the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// takeListed takes the status of an instance that a node keeps: unlike a report, which may be late, it
// means that the node has something to forget even when the instance is gone.
func (s *State) takeListed(status fleet.InstanceStatus) {
	if _, i := s.find(status.Instance); i == nil {
		s.takeUnknown(status)
		return
	}
	s.takeObserved(status)
}

// takeUnknown takes a report of an instance that nobody spoke of before. While nothing was said about
// its service it is adopted; else it is one too many.
func (s *State) takeUnknown(status fleet.InstanceStatus) {
	v := s.service(status.Service)
	i := s.adopt(v, status)
	i.failed = status.State == fleet.Failed
	surplus := v.built || !v.asked && s.set
	v.gone = v.gone || !v.asked && s.set
	if surplus || i.failed || status.State == fleet.Exited || status.State == fleet.Stopping {
		i.generation = -1
		s.move(i, stopping)
	}
}
