// Package process supervises the instances of one node: it starts them, watches their health,
// restarts them after a crash, and stops them.
//
// It is the end of the third walk (a change) and runs in the node. The hub decides what runs; from
// then on the node needs no hub: each assignment is kept on disk, and a crashed instance is restarted
// from it alone. How an application is started, dialed and drained are seams in [Config].
//
// Each instance has one goroutine, its keeper, which lives through all starts of the instance. All
// methods of [Supervisor] are safe for concurrent use.
package process

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Process is one started application. If it has also `PID() int` and `Tail() []string` (its last
// lines of output), they are shown in its status; `Port(declared uint16) uint16` tells where it is to
// listen in place of a port that it declares.
type Process interface {
	// Done is closed when no process of the application is left.
	Done() <-chan struct{}
	// Exit is valid once Done is closed. failure is empty for an exit by itself, else it says what
	// ended the process: `killed by SIGSEGV`.
	Exit() (code int, failure string)
	// Stop sends TERM, after grace KILL, and returns when the application is gone.
	Stop(ctx context.Context, grace time.Duration) error
}

// Spec is one start: the assignment with its secrets resolved. It is never stored.
type Spec struct {
	Assignment fleet.Assignment
	Env        []string // resolved, NAME=value
	Redact     []string // values of secrets, to be kept out of logs
}

// Running is an application that outlived an earlier supervisor.
type Running struct {
	Assignment fleet.Assignment
	Process    Process
}

// Config joins a Supervisor to the rest of the node. Dir, Launch, Dial and Report are required.
type Config struct {
	Node string // the node's name, for statuses
	Dir  string // assignments are kept here, one JSON file per instance
	// Launch starts an application; it returns when the process runs, not when it is ready.
	Launch func(ctx context.Context, s Spec) (Process, error)
	// Dial connects to a port of an instance, for probes.
	Dial func(ctx context.Context, instance string, port uint16) (net.Conn, error)
	// Drain lets no new exchange begin at the instance and returns when none is left. nil: nothing to drain.
	Drain func(ctx context.Context, instance string) error
	// Secrets resolves references, at each start. nil: an assignment with a secret fails.
	Secrets func(ctx context.Context, refs []string) (map[string]string, error)
	// Report is told each change of a status, by one goroutine. While it blocks, changes of one
	// instance are merged; the last one is never lost.
	Report func(s fleet.InstanceStatus)

	DrainTimeout time.Duration // for exchanges that are open at Stop; 0 means 10 s
	Settle       time.Duration // what has no port is ready after running this long; 0 means 1 s
	// Attempts is how often an instance that was never ready may exit before it is given up. 0 means 5.
	Attempts int
}

// withDefaults returns c with zero values replaced, or says what it lacks.
func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || c.Launch == nil || c.Dial == nil || c.Report == nil {
		return c, errors.New("process: Config needs Dir, Launch, Dial and Report")
	}
	orDefault(&c.DrainTimeout, 10*time.Second)
	orDefault(&c.Settle, time.Second)
	orDefault(&c.Attempts, 5)
	return c, nil
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
