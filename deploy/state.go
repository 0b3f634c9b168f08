package deploy

import (
	"maps"
	"slices"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// State is all that Step knows. The zero value is not usable; see [NewState].
type State struct {
	home       string // the node beside the hub
	nodes      map[string]*nodeState
	probeEvery time.Duration

	services map[string]*service
	serial   int // the highest number of an instance of a service that was forgotten
	plan     Plan
	set      bool // a Set has come: what is not wanted is to be stopped
	stopping bool // a StopAll has come: nothing is wanted

	acked map[string]fleet.Service // what every live node acknowledged
	sent  *fleet.Change            // the Apply under way; nil: none
	// doubt holds what failed Applies said of a service: some nodes may have taken it. It is void
	// once a later Apply that speaks of the service is acknowledged.
	doubt    map[string][]fleet.Service
	applying retry

	asked   time.Time // when the first wish came that is not fulfilled yet; zero: all is as wished
	now     time.Time
	actions []Action
	moved   bool // something changed in this Step, so that others may move too
}

// NewState returns a state that wants nothing. Until others are named, new instances are placed on home,
// the node beside the hub; each instance is probed every probeEvery.
func NewState(home string, probeEvery time.Duration) State {
	return State{home: home, nodes: map[string]*nodeState{home: {}}, probeEvery: probeEvery, services: map[string]*service{},
		acked: map[string]fleet.Service{}, doubt: map[string][]fleet.Service{}}
}

// service is what is known of one service.
type service struct {
	name   string
	target Target
	asked  bool // a target was given; what is adopted stays as it is until then
	built  bool // target has a release, or needs none; what it says may be carried out
	gone   bool // not in the last Set: to be stopped and forgotten

	// generation grows when instances are to be replaced. An instance of an older one is old.
	generation int
	serial     int             // the highest number of an instance so far
	nodes      []string        // where it ran last, the newest first
	migrated   map[string]bool // releases whose `before` has ended well
	attached   string          // address that took its place
	debug      bool
	up         bool // has been ready as a whole since it was last stopped

	building   bool
	buildError []string // what the failed build printed; nil: none failed
	unbuilt    bool     // buildError says why nothing was built
	opened     int      // the generation that need not wait for callees any more
	waits      []string // callees that it was last seen waiting for

	instances []*instance // by number
}

// phase is where the hub stands with an instance; the node's view is its status.
type phase int

const (
	planned  phase = iota // to be placed and started
	running               // Start was asked for; takes no calls
	serving               // takes calls
	draining              // takes no new calls; to be stopped once that is acknowledged
	stopping              // Stop was, or is about to be, asked for
	dead                  // failed and gone; kept to show why, and so as not to be tried again
)

// beforeJob is the worker name of a `before` command's instance.
const beforeJob = "before"

type instance struct {
	id         string
	assignment fleet.Assignment
	status     fleet.InstanceStatus
	generation int
	phase      phase
	node       string

	served  bool // was serving once
	failed  bool // the node, or we, gave it up; its status is kept as it was then
	lost    bool // adopted by the snapshot alone: no node has spoken of it yet
	pending bool // a Start or Stop is under way
	untold  bool // its assignment changed since Start
	restart retry
	started time.Time // when Start was first asked for

	probe   time.Time // when to probe next
	probing bool
	fresh   bool // a report came, or a Start went out, since the probe was sent, which is then out of date
}

// retry is when a failed action is tried again.
type retry struct {
	failures int
	at       time.Time
}

// fail notes a failure: the next try is after 100 ms, twice as long each time, up to 5 s.
func (r *retry) fail(now time.Time) {
	wait := min(100*time.Millisecond<<min(r.failures, 10), 5*time.Second)
	r.failures++
	r.at = now.Add(wait)
}

func (r *retry) due(now time.Time) bool { return !now.Before(r.at) }

// service returns the service of that name, which it makes where it is new. One that is new to this
// state may have been there before: it numbers its instances from above any that there ever was.
func (s *State) service(name string) *service {
	v, ok := s.services[name]
	if !ok {
		v = &service{name: name, serial: s.highest()}
		s.services[name] = v
	}
	return v
}

func (s *State) highest() int {
	return max(s.serial, highestOf(s.sorted()))
}

// forget drops services that are not wanted any more and gone. Their numbers live on, in the snapshot
// too as long as there is any other service.
func (s *State) forget() {
	s.serial = s.highest()
	for name, v := range s.services {
		if v.gone && len(v.instances) == 0 {
			delete(s.services, name)
		}
	}
	if left := s.sorted(); len(left) > 0 && s.highest() > highestOf(left) {
		left[0].serial = s.serial
	}
}

func highestOf(all []*service) (n int) {
	for _, v := range all {
		n = max(n, v.serial)
	}
	return n
}

// sorted returns the services by name, so that a Step is the same each time.
func (s *State) sorted() []*service {
	all := make([]*service, 0, len(s.services))
	for _, name := range slices.Sorted(maps.Keys(s.services)) {
		all = append(all, s.services[name])
	}
	return all
}

// find returns the instance of that id and its service, or nil.
func (s *State) find(id string) (*service, *instance) {
	for _, v := range s.services {
		for _, i := range v.instances {
			if i.id == id {
				return v, i
			}
		}
	}
	return nil, nil
}

// wanted returns how many instances are to run. ok is false where that is not known: what runs stays.
func (s *State) wanted(v *service) (n int, ok bool) {
	switch {
	case v.gone, s.stopping:
		return 0, true
	case !v.built:
		return 0, false
	case v.target.Stopped, v.target.External != "":
		return 0, true
	}
	return max(1, v.target.Instances), true
}

// failedFinally tells whether no instance of v will be there unless something new is asked for.
func (s *State) failedFinally(v *service) bool {
	hope := v.each("", func(i *instance) bool { return !i.failed && (i.begun() || i.phase == serving) })
	return len(hope) == 0 && !v.building && (v.defeated() || v.buildError != nil)
}
