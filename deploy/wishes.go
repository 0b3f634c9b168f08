package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// Set states all that is wanted. Services that are not among targets any more are drained, stopped
// and forgotten. What runs already as it is wanted is left alone, and so is what has failed. It
// returns when the wish is taken; Wait waits for its fulfilment. The targets must not be changed
// afterwards.
func (e *Engine) Set(ctx context.Context, targets []Target) error {
	return e.ask(ctx, Set{targets}, nil)
}

// Update states what is wanted of one service, new or known, and leaves all others alone. A new
// release starts beside the old one and takes over when it is healthy; if it fails, the old one
// serves on. A newer Update supersedes one under way. What has failed is tried again.
func (e *Engine) Update(ctx context.Context, t Target) error { return e.ask(ctx, Update{t}, nil) }

// Building says that a new release of service is being built; Update or BuildFailed follows.
func (e *Engine) Building(service string) { e.push(message{in: Building{service}}) }

// BuildFailed says that the build failed; text is what it printed. What runs goes on.
func (e *Engine) BuildFailed(service, text string) {
	e.push(message{in: BuildFailed{service, text, false}})
}

// Refused says that what is declared of service now cannot be built or run, and why. What runs goes on.
func (e *Engine) Refused(service, text string) { e.push(message{in: BuildFailed{service, text, true}}) }

// Observe takes what a node reports of one instance. It never blocks.
func (e *Engine) Observe(s fleet.InstanceStatus) { e.push(message{in: Observed{s}}) }

// Resync takes all that a node runs, when it has connected again. What it does not name is
// asked for through Driver.Probe.
func (e *Engine) Resync(node string, all []fleet.InstanceStatus) {
	e.push(message{in: Resync{node, all}})
}

// Nodes names the nodes that are connected now, and those that left the fleet for good. It never blocks.
func (e *Engine) Nodes(live []Node, removed ...string) { e.push(message{in: Nodes{live, removed}}) }

// Adopt takes over what runs already, before the first Set: s (nil: none) is the snapshot that
// control kept. What of it no node has spoken of is asked for through Driver.Probe.
func (e *Engine) Adopt(running []fleet.InstanceStatus, s *fleet.Snapshot) {
	e.push(message{in: Adopt{running, s}})
}

// Restart replaces all instances of services by new ones of the same releases, as Update does.
func (e *Engine) Restart(ctx context.Context, services []string) error {
	return e.ask(ctx, Restart{services}, nil)
}

// Attach lets address (HOST:PORT) take the place of service, and returns when every node knows. The
// service's own instances go on without calls, until Detach.
func (e *Engine) Attach(ctx context.Context, service, address string) error {
	return e.ask(ctx, Attach{service, address}, tableKnown(service))
}

// Detach gives service its place back, and returns when every node knows. Where another address than
// this one has the place by now, it stays. It undoes an Attach that was asked for before it, also one
// whose context has ended.
func (e *Engine) Detach(ctx context.Context, service, address string) error {
	return e.ask(ctx, Detach{service, address}, tableKnown(service))
}

// Debug suspends health, deadlines and restarts of service, or resumes them; its instances run on.
func (e *Engine) Debug(ctx context.Context, service string, on bool) error {
	return e.ask(ctx, Debug{service, on}, tableKnown(service))
}

// Stop stops every service, callers before what they call, and returns when all are gone. A Set that
// comes meanwhile ends it with an error.
func (e *Engine) Stop(ctx context.Context) error {
	return e.ask(ctx, StopAll{}, func(s *State) (bool, error) {
		if !s.stopping {
			return false, errors.New("services were asked to run again before all had stopped")
		}
		for _, v := range s.services {
			if len(v.instances) > 0 {
				return false, nil
			}
		}
		return s.settled(), nil
	})
}

// Heard returns once Status has all in it that the engine was told before.
func (e *Engine) Heard(ctx context.Context) error { return e.ask(ctx, nil, nil) }

// Status returns all services, sorted by name.
func (e *Engine) Status() []fleet.ServiceStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.status)
}

// Wait waits until the services (none: all) are ready, or have failed for good; it then returns a
// [*FailedError] that names those. When ctx ends first, the error also says who is not ready, and why.
func (e *Engine) Wait(ctx context.Context, services []string) error {
	err := e.ask(ctx, nil, func(s *State) (bool, error) { return s.waited(services) })
	if err == nil || ctx.Err() == nil {
		return err
	}
	failed := &FailedError{Cause: ctx.Err()}
	for _, status := range e.Status() {
		calm := status.State == fleet.ServiceReady || status.State == fleet.ServiceExternal || status.State == fleet.ServiceStopped
		if !calm && (len(services) == 0 || slices.Contains(services, status.Name)) {
			failed.Services = append(failed.Services, status)
		}
	}
	return failed
}

// waited is the question that Wait asks.
func (s *State) waited(services []string) (bool, error) {
	if err := s.known(services...); err != nil {
		return false, err
	}
	failed := &FailedError{}
	for _, v := range s.sorted() {
		if len(services) > 0 && !slices.Contains(services, v.name) {
			continue
		}
		if !s.settledService(v) {
			return false, nil
		}
		if v.defeated() || v.buildError != nil {
			failed.Services = append(failed.Services, s.status(v))
		}
	}
	if len(failed.Services) > 0 {
		return true, failed
	}
	return true, nil
}

// FailedError names services that are not as they were asked to be.
type FailedError struct {
	Services []fleet.ServiceStatus
	Cause    error // why nobody waits any longer; nil: they have failed for good
}

// Error gives each service a line, and the last lines of its output below.
func (e *FailedError) Error() string {
	var text []string
	for _, s := range e.Services {
		line := s.Name + " is " + string(s.State)
		if s.Failure != "" {
			line += ": " + s.Failure
		}
		text = append(text, line)
		for _, l := range last(s.LastLog, shownLines) {
			text = append(text, "    "+l)
		}
	}
	if e.Cause != nil {
		text = append(text, "stopped waiting: "+e.Cause.Error())
	}
	return strings.Join(text, "\n")
}

// Unwrap returns Cause.
func (e *FailedError) Unwrap() error { return e.Cause }

// tableKnown is met when every node knows what the state says of a service.
func tableKnown(service string) func(*State) (bool, error) {
	return func(s *State) (bool, error) {
		v := s.services[service]
		return v == nil || !v.described() || s.agreed(v), nil
	}
}

// check says why an input cannot be taken.
func (s *State) check(in Input) error {
	switch in := in.(type) {
	case Set:
		for _, t := range in.Targets {
			if err := t.check(); err != nil {
				return err
			}
		}
	case Update:
		return in.Target.check()
	case Restart:
		return s.checkRestart(in.Services)
	case Attach:
		if _, _, err := net.SplitHostPort(in.Address); err != nil {
			return fmt.Errorf("cannot attach %s: %q is not HOST:PORT", in.Service, in.Address)
		}
		return s.known(in.Service)
	case Detach:
		return s.known(in.Service)
	case Debug:
		return s.known(in.Service)
	}
	return nil
}

func (t *Target) check() error {
	if err := fleet.CheckName(t.Manifest.Service); err != nil {
		return fmt.Errorf("target without a usable name: %w", err)
	}
	if t.Release.ID != "" && t.Run == "" {
		return fmt.Errorf("%s has a release but no command to run; its manifest needs `run:`", t.Manifest.Service)
	}
	if _, taken := t.Workers[beforeJob]; taken {
		return fmt.Errorf("%s has a worker named %q, which is the name of its `before`; rename it", t.Manifest.Service, beforeJob)
	}
	return nil
}

func (s *State) checkRestart(services []string) error {
	if err := s.known(services...); err != nil {
		return err
	}
	for _, name := range services {
		v := s.services[name]
		if n, ok := s.wanted(v); ok && n == 0 {
			return fmt.Errorf("%s cannot be restarted: it is %s", name, s.state(v))
		}
	}
	return nil
}

// known says which of names is no service of the fleet.
func (s *State) known(names ...string) error {
	for _, name := range names {
		if s.services[name] == nil {
			return fmt.Errorf("no service %q is in the fleet; there are: %s", name,
				strings.Join(slices.Sorted(maps.Keys(s.services)), ", "))
		}
	}
	return nil
}
