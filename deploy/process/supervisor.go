package process

import (
	"context"

	"github.com/shoalrun/shoal/fleet"
)

// Supervisor runs the instances of one node. Make one with [New].
type Supervisor struct{ config Config }

// New returns a supervisor of nothing. Call Adopt once, then Run.
func New(c Config) (*Supervisor, error) {
	c, err := c.withDefaults()
	return &Supervisor{config: c}, err
}

// Run supervises until ctx ends, then returns nil and leaves applications running.
func (s *Supervisor) Run(ctx context.Context) error { return nil }

// Adopt takes over what runs already and restarts, from the assignments on disk, what has died.
func (s *Supervisor) Adopt(running []Running) error { return nil }

// Start takes an assignment: it is on disk when Start returns.
func (s *Supervisor) Start(ctx context.Context, a fleet.Assignment) error { return nil }

// Stop drains and stops an instance, forgets it, and returns when it is gone.
func (s *Supervisor) Stop(ctx context.Context, instance string) error { return nil }

// Probe returns the status of an instance; Exited for one that is not known.
func (s *Supervisor) Probe(ctx context.Context, instance string) (fleet.InstanceStatus, error) {
	return fleet.InstanceStatus{}, nil
}

// Statuses returns the status of every instance, sorted by id.
func (s *Supervisor) Statuses() []fleet.InstanceStatus { return nil }

// StopAll stops every instance at once, without draining, and takes no new one.
func (s *Supervisor) StopAll(ctx context.Context) error { return nil }
