package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"

	"github.com/shoalrun/shoal/deploy/process"
	"github.com/shoalrun/shoal/sidecar"
)

// sidecars joins process to sidecar, and finds a living sidecar by its instance or its service.
type sidecars struct {
	manager *sidecar.Manager
	logs    string // folder of the services' logs

	mu     sync.Mutex
	living map[string]*sidecar.Sidecar // by instance
}

func newSidecars(logs string) *sidecars {
	return &sidecars{logs: logs, living: make(map[string]*sidecar.Sidecar)}
}

// Launch is process.Config.Launch.
func (s *sidecars) Launch(ctx context.Context, spec process.Spec) (process.Process, error) {
	started, err := s.manager.Launch(ctx, sidecar.Spec(spec))
	if err != nil {
		return nil, err
	}
	s.keep(started)
	s.forgetLogs(spec.Assignment.Service)
	return started, nil
}

// logsKept is how many instances of a service leave their logs behind.
const logsKept = 10

// forgetLogs removes the logs of a service's oldest instances, so that edits do not fill the disk.
func (s *sidecars) forgetLogs(service string) {
	paths := logFiles(s.logs, []string{service})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range paths[:max(0, len(paths)-logsKept)] {
		if s.living[instanceOf(path)] != nil {
			continue
		}
		_ = os.Remove(path + ".1")
		_ = os.Remove(path) // what cannot be removed now is tried again at the next start
	}
}

// Adopt takes over the shims that an earlier node left running.
func (s *sidecars) Adopt(ctx context.Context) ([]process.Running, error) {
	adopted, err := s.manager.Adopt(ctx)
	running := make([]process.Running, 0, len(adopted))
	for _, a := range adopted {
		s.keep(a)
		running = append(running, process.Running{Assignment: a.Assignment(), Process: a})
	}
	return running, err
}

func (s *sidecars) keep(started *sidecar.Sidecar) {
	id := started.Assignment().Instance
	s.mu.Lock()
	s.living[id] = started
	s.mu.Unlock()
	go func() {
		<-started.Done()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.living[id] == started { // not one that has taken its place
			delete(s.living, id)
		}
	}()
}

// Dial connects to a port of an instance, for probes.
func (s *sidecars) Dial(ctx context.Context, instance string, port uint16) (net.Conn, error) {
	s.mu.Lock()
	to := s.living[instance]
	s.mu.Unlock()
	if to == nil {
		return nil, fmt.Errorf("%s is not running", instance)
	}
	return to.Dial(ctx, port)
}

var errNoInstance = errors.New("no instance of it runs on this node; `shoal status` shows why")

// Of returns a living sidecar of a service, the newest first; workers only where there is no other.
func (s *sidecars) Of(service string) (*sidecar.Sidecar, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*sidecar.Sidecar
	for _, one := range s.living {
		if one.Assignment().Service == service {
			found = append(found, one)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: %w", service, errNoInstance)
	}
	return slices.MaxFunc(found, func(a, b *sidecar.Sidecar) int { return rank(a) - rank(b) }), nil
}

// rank orders the sidecars of a service by how well they stand for it.
func rank(s *sidecar.Sidecar) int {
	if s.Assignment().Worker != "" {
		return 0
	}
	return s.PID() // grows with age on one machine, but for a wrap
}

// Release lets go of every shim without ending it.
func (s *sidecars) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.living {
		one.Release()
	}
}
