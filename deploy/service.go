package deploy

import (
	"fmt"
	"slices"

	"github.com/shoalrun/shoal/fleet"
)

// add plans one more instance of v's newest release.
func (s *State) add(v *service, worker string) *instance {
	v.serial++
	id := fmt.Sprintf("%s-%.6s-%d", v.name, v.target.Release.ID, v.serial)
	node := s.place(v, worker)
	v.remember(node)
	i := &instance{id: id, generation: v.generation, node: node, assignment: s.assignment(v, id, worker, node)}
	i.status = fleet.InstanceStatus{Instance: id, Service: v.name, Worker: worker, Node: node,
		Release: v.target.Release.ID, State: fleet.Starting, Mode: i.assignment.Mode}
	v.instances = append(v.instances, i)
	s.moved = true
	return i
}

// assignment writes what a node is told of an instance.
func (s *State) assignment(v *service, id, worker, node string) fleet.Assignment {
	t := &v.target
	a := fleet.Assignment{Instance: id, Service: v.name, Worker: worker, Release: t.Release, Manifest: t.Manifest,
		Command: t.Run, Dir: t.Dir, Env: t.Env, Mode: s.mode(node, t.Mode), State: t.State, Grace: t.Grace,
		HealthTimeout: t.HealthTimeout, Debug: v.debug}
	if a.Dir == "" {
		a.Dir = t.Release.Dir
	}
	if command, ok := t.Workers[worker]; ok {
		a.Command = command
	}
	if worker == beforeJob {
		a.Command, a.Once, a.Dir = t.Before, true, t.Release.Dir
	}
	return a
}

// drop forgets an instance.
func (s *State) drop(v *service, i *instance) {
	v.instances = slices.DeleteFunc(v.instances, func(o *instance) bool { return o == i })
	s.moved = true
}

// move takes an instance into another phase.
func (s *State) move(i *instance, to phase) {
	i.phase = to
	s.moved = true
}

// worker is the name in `workers`, [beforeJob], or empty for the service's own instances.
func (i *instance) worker() string { return i.assignment.Worker }

func (i *instance) ready() bool { return i.status.State == fleet.Ready }

// begun tells whether i is on its way to being served from; a worker stays so.
func (i *instance) begun() bool { return i.phase == planned || i.phase == running }

// leaving tells whether i is on its way out.
func (i *instance) leaving() bool { return i.phase == draining || i.phase == stopping }

// alive tells whether i runs or may run on its node.
func (i *instance) alive() bool { return i.phase != planned && i.phase != dead }

// watched tells whether i is to be probed.
func (i *instance) watched() bool {
	return (i.phase == running || i.phase == serving) && !i.pending && !i.probing
}

// described tells whether the snapshot is to say what the state says of v.
func (v *service) described() bool { return v.asked || v.gone }

// oldServing tells whether i takes calls and is to be replaced.
func (v *service) oldServing(i *instance) bool {
	return i.phase == serving && i.generation < v.generation
}

// jobs returns the instances of `before`, of any release.
func (v *service) jobs() []*instance { return v.each(beforeJob, anyInstance) }

// migratedAlready tells whether `before` of the newest release needs not run any more.
func (v *service) migratedAlready() bool {
	return v.target.Before == "" || v.migrated[v.target.Release.ID]
}

// migrate notes that `before` of a release has ended well.
func (v *service) migrate(release string) {
	if v.migrated == nil {
		v.migrated = map[string]bool{}
	}
	v.migrated[release] = true
}

// beforeFailed tells whether `before` of the newest release has failed.
func (v *service) beforeFailed() bool {
	return slices.ContainsFunc(v.jobs(), func(i *instance) bool { return i.failed && i.generation == v.generation })
}

// defeated tells whether something of the newest release was given up.
func (v *service) defeated() bool {
	return slices.ContainsFunc(v.instances, func(i *instance) bool { return i.failed && i.generation == v.generation })
}

// each returns v's instances of a worker ("" for the service itself) that are kept by keep.
func (v *service) each(worker string, keep func(*instance) bool) []*instance {
	var found []*instance
	for _, i := range v.instances {
		if i.worker() == worker && keep(i) {
			found = append(found, i)
		}
	}
	return found
}
