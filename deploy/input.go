package deploy

import "github.com/shoalrun/shoal/fleet"

// Input is one thing that [Step] takes into account: a wish of the operator, what a node reports, or
// how an action ended.
type Input interface{ input() }

// Wishes.
type (
	// Set states all that is wanted.
	Set struct{ Targets []Target }
	// Update states what is wanted of one service.
	Update struct{ Target Target }
	// Building says that a release of a service is being built.
	Building struct{ Service string }
	// BuildFailed carries what a failed build printed, or, where Unbuilt, why nothing was built.
	BuildFailed struct {
		Service, Text string
		Unbuilt       bool
	}
	// Restart asks for new instances of the same releases.
	Restart struct{ Services []string }
	// Attach lets Address take the place of a service.
	Attach struct{ Service, Address string }
	// Detach gives a service its place back from Address.
	Detach struct{ Service, Address string }
	// Debug suspends health, deadlines and restarts, or resumes them.
	Debug struct {
		Service string
		On      bool
	}
	// StopAll asks for nothing to run any more.
	StopAll struct{}
)

// What is seen.
type (
	// Adopt tells what runs already.
	Adopt struct {
		Running  []fleet.InstanceStatus
		Snapshot *fleet.Snapshot
	}
	// Observed is a node's report of one instance.
	Observed struct{ Status fleet.InstanceStatus }
	// Resync is all that a node runs.
	Resync struct {
		Node string
		All  []fleet.InstanceStatus
	}
	// Nodes names the nodes that are connected now, and those that are not part of the fleet any more.
	Nodes struct {
		Live    []Node
		Removed []string
	}
	// Applied ends an Apply action.
	Applied struct{ Err error }
	// Started ends a Start action.
	Started struct {
		Instance string
		Err      error
	}
	// Gone ends a Stop action.
	Gone struct {
		Instance string
		Err      error
	}
	// Probed ends a Probe action.
	Probed struct {
		Instance string
		Status   fleet.InstanceStatus
		Err      error
	}
	// Tick says that time has passed; see [State.Wake].
	Tick struct{}
)

func (Set) input()         {}
func (Update) input()      {}
func (Building) input()    {}
func (BuildFailed) input() {}
func (Restart) input()     {}
func (Attach) input()      {}
func (Detach) input()      {}
func (Debug) input()       {}
func (StopAll) input()     {}
func (Adopt) input()       {}
func (Observed) input()    {}
func (Resync) input()      {}
func (Nodes) input()       {}
func (Applied) input()     {}
func (Started) input()     {}
func (Gone) input()        {}
func (Probed) input()      {}
func (Tick) input()        {}

// Action is one thing that [Step] asks its caller to do. Actions of one Step may run concurrently;
// each but Tell ends in an input of its own.
type Action interface{ action() }

// The actions.
type (
	// Apply is answered by Applied. At most one is under way.
	Apply struct{ Change fleet.Change }
	// Start is answered by Started.
	Start struct {
		Node       string
		Assignment fleet.Assignment
	}
	// Stop is answered by Gone.
	Stop struct{ Node, Instance string }
	// Probe is answered by Probed.
	Probe struct{ Node, Instance string }
	// Tell passes progress on.
	Tell struct{ Progress fleet.Progress }
)

func (Apply) action() {}
func (Start) action() {}
func (Stop) action()  {}
func (Probe) action() {}
func (Tell) action()  {}
