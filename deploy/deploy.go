// Package deploy brings the fleet from what runs to what is wanted: start, update, restart, stop.
//
// It is the middle of the third walk (a change): api -> deploy -> control and the nodes. It runs in
// the hub. [Step] decides, purely: one input, and the time, in; the next state and the actions out.
// [Engine] is the thin shell around it that gathers inputs, executes actions concurrently and
// tells progress. Traffic moves by Config.Apply and by nothing else.
//
// What decides looks at the whole state after each input and asks for what is missing, so it does
// not matter in which order reports arrive, or that a newer Update comes in the middle of a rollout.
// These orders always hold:
//
//   - an instance, a worker and a `before` too, is in the snapshot as Placed, acknowledged by every live
//     node, before it starts;
//   - a service starts when every service that it calls is ready, has failed, or is not going to run;
//     services that call each other in a circle start together;
//   - `before` has ended well before an instance of its release starts; it runs once per release;
//   - an old instance is Draining, acknowledged, before it is stopped, and it is withdrawn from the
//     snapshot only when it is gone; while a whole service stops, so do its callers before it;
//   - a worker is replaced after its service's instances are: the old one is gone before the new one
//     starts, so that two releases of a worker never run at once.
//
// All methods of Engine are safe for concurrent use. State and Step are for one goroutine.
package deploy

import (
	"context"
	"errors"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Target is what is wanted of one service.
type Target struct {
	Manifest fleet.Manifest
	// Release is what to run. One without an ID says that the service is still being built: what
	// runs of it stays, what calls it waits, until Update or BuildFailed is called.
	Release fleet.Release
	Run     string            // command of the service's instances, for `/bin/sh -c`
	Dir     string            // working directory; empty: the release's (`dev` runs in the clone)
	Workers map[string]string // name -> command; one instance each
	Before  string            // command that must end well once per release; empty: none

	Instances int // of Run; 0 means 1
	// Nodes are the nodes that it may run on; empty: any. Local keeps it beside the hub.
	Nodes []string
	Local bool

	Env   []fleet.EnvVar
	Mode  fleet.Mode
	State string         // the service's $SHOAL_STATE
	Grace fleet.Duration // between TERM and KILL; 0 means 10 s
	// HealthTimeout bounds the time until a new instance is ready. 0 means 60 s.
	HealthTimeout fleet.Duration

	Origin   fleet.Origin
	Source   string // path, URL@pin, for status
	External string // HOST:PORT of a service that runs outside Shoal; nothing is started
	Stopped  bool   // known to the fleet, but not asked to run
	Learn    bool   // undeclared calls are let through and recorded
}

// Driver runs instances on nodes. Its methods are called concurrently, for one instance one at a
// time, and are retried with backoff when they fail.
type Driver interface {
	// Start returns when the node has taken the assignment, not when the instance is ready: that is
	// reported to Engine.Observe. Starting an instance that runs only changes its Debug flag.
	Start(ctx context.Context, node string, a fleet.Assignment) error
	// Stop drains, sends TERM, after the grace period KILL, and returns when the instance is gone and
	// forgotten. Stopping one that the node does not know is no error.
	Stop(ctx context.Context, node, instance string) error
	// Probe returns the instance's status. One that the node does not know has the state Exited and
	// names no service.
	// An error means that the node could not be asked.
	Probe(ctx context.Context, node, instance string) (fleet.InstanceStatus, error)
}

// Config joins an Engine to the rest of the hub. All fields but Progress are required.
type Config struct {
	// Node is the node beside the hub: new instances are placed on it until others are there, and what
	// runs in a clone always is.
	Node   string
	Driver Driver
	// Apply makes a change of desired state take effect; it returns when every live node has
	// acknowledged it. One call at a time. A failed Apply is repeated with backoff.
	Apply func(ctx context.Context, c fleet.Change) error
	// Progress is told what happens, in order; it must not block. nil: nobody is told.
	Progress func(p fleet.Progress)
	// ProbeInterval is the time between two looks at each instance through Driver.Probe, which find
	// what a lost connection kept from being reported. 0 means 10 s.
	ProbeInterval time.Duration
}

// check says what a Config lacks.
func (c *Config) check() error {
	switch {
	case c.Node == "":
		return errors.New("deploy: Config.Node is empty: name the node that runs instances")
	case c.Driver == nil:
		return errors.New("deploy: Config.Driver is nil: nothing could start an instance")
	case c.Apply == nil:
		return errors.New("deploy: Config.Apply is nil: nothing could move traffic")
	}
	return nil
}
