package deploy

import (
	"context"

	"github.com/shoalrun/shoal/fleet"
)

// Engine keeps the fleet as it was asked to be. Make one with [New].
type Engine struct{ config Config }

// New returns an engine that wants nothing yet. It does nothing until Run.
func New(c Config) (*Engine, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Engine{config: c}, nil
}

// Run carries out what the other methods ask for, until ctx ends; it then returns nil and leaves
// instances as they are. It waits for actions in flight, whose contexts end with ctx.
func (e *Engine) Run(ctx context.Context) error { return nil }

// Set states all that is wanted. Services that are not among targets any more are stopped and
// forgotten. It returns when the wish is taken; Wait waits for its fulfilment.
func (e *Engine) Set(ctx context.Context, targets []Target) error { return nil }

// Update states what is wanted of one service, new or known, and leaves all others alone.
func (e *Engine) Update(ctx context.Context, t Target) error { return nil }

// Building says that a new release of service is being built.
func (e *Engine) Building(service string) {}

// BuildFailed says that the build failed; text is what it printed.
func (e *Engine) BuildFailed(service, text string) {}

// Observe takes what a node reports of one instance.
func (e *Engine) Observe(s fleet.InstanceStatus) {}

// Resync takes all that a node runs, when it has connected again.
func (e *Engine) Resync(node string, all []fleet.InstanceStatus) {}

// Adopt takes over what runs already, before the first Set.
func (e *Engine) Adopt(running []fleet.InstanceStatus, s *fleet.Snapshot) {}

// Restart replaces the instances of services by new ones of the same release.
func (e *Engine) Restart(ctx context.Context, services []string) error { return nil }

// Attach lets address (HOST:PORT) take the place of service.
func (e *Engine) Attach(ctx context.Context, service, address string) error { return nil }

// Detach gives service its place back.
func (e *Engine) Detach(ctx context.Context, service string) error { return nil }

// Debug suspends health, deadlines and restarts of service, or resumes them.
func (e *Engine) Debug(ctx context.Context, service string, on bool) error { return nil }

// Stop stops every service and returns when all are gone.
func (e *Engine) Stop(ctx context.Context) error { return nil }

// Status returns all services, sorted by name.
func (e *Engine) Status() []fleet.ServiceStatus { return nil }

// Wait waits until the services (none: all) are settled.
func (e *Engine) Wait(ctx context.Context, services []string) error { return nil }
