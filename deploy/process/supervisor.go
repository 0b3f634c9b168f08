package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Supervisor runs the instances of one node. Make one with [New].
type Supervisor struct {
	config  Config
	store   store
	reports *reports
	work    sync.WaitGroup // the keepers
	ended   chan struct{}  // closed when Run returns

	mu      sync.Mutex // guards what follows
	keepers map[string]*keeper
	run     context.Context // of Run; nil until it is called
	closed  bool            // StopAll was called
}

// New returns a supervisor of nothing. Call Adopt once, then Run.
func New(c Config) (*Supervisor, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	files, err := openStore(c.Dir)
	if err != nil {
		return nil, err
	}
	return &Supervisor{config: c, store: files, reports: newReports(c.Report),
		ended: make(chan struct{}), keepers: map[string]*keeper{}}, nil
}

// Run supervises until ctx ends, then returns nil and leaves applications running: whoever wants
// them gone calls StopAll first. Call it once.
func (s *Supervisor) Run(ctx context.Context) error {
	defer close(s.ended)
	var reporting sync.WaitGroup
	reporting.Go(s.reports.run)
	s.mu.Lock()
	s.run = ctx
	for _, k := range s.keepers {
		s.keepLocked(k)
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true // no keeper starts from here on
	s.mu.Unlock()
	s.work.Wait()
	s.reports.close()
	reporting.Wait()
	return nil
}

// keepLocked starts a keeper's goroutine, once Run was called.
func (s *Supervisor) keepLocked(k *keeper) {
	if s.run != nil && s.run.Err() == nil && !k.kept {
		k.kept = true
		ctx := s.run
		s.work.Go(func() { k.run(ctx) })
	}
}

// Adopt takes over what runs already and restarts, from the assignments on disk, what has died. Call
// it before Run. An assignment that cannot be read is dropped: the hub sends it again.
func (s *Supervisor) Adopt(running []Running) error {
	records, err := s.store.load()
	if err != nil {
		return err
	}
	for _, r := range running {
		id := r.Assignment.Instance
		i := slices.IndexFunc(records, func(o record) bool { return o.Assignment.Instance == id })
		if i < 0 {
			records = append(records, record{Assignment: r.Assignment})
			if err := s.store.save(records[len(records)-1]); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rec := range records {
		k := newKeeper(s, rec)
		for _, r := range running {
			if r.Assignment.Instance == rec.Assignment.Instance {
				k.adopted = r.Process
			}
		}
		k.resume()
		s.keepers[rec.Assignment.Instance] = k
		s.keepLocked(k)
	}
	return nil
}

// Start takes an assignment: it is on disk when Start returns, and the instance is on its way. If the
// instance is known, only its Debug flag is taken over; nothing restarts.
func (s *Supervisor) Start(ctx context.Context, a fleet.Assignment) error {
	if err := checkID(a.Instance); err != nil {
		return err
	}
	k, fresh, err := s.enter(a)
	if err != nil {
		return err
	}
	if !fresh {
		return k.setDebug(a.Debug)
	}
	if err := s.store.save(k.record); err != nil {
		err = errors.Join(err, s.forget(k))
		close(k.done)
		return err
	}
	k.report()
	s.mu.Lock()
	defer s.mu.Unlock()
	k.kept = false
	s.keepLocked(k)
	return nil
}

// enter returns the keeper of an assignment's instance, a fresh one where there is none.
func (s *Supervisor) enter(a fleet.Assignment) (k *keeper, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.keepers[a.Instance]; k != nil {
		return k, false, nil
	}
	if s.closed {
		return nil, false, fmt.Errorf("process: node %s is shutting down; %s was not started", s.config.Node, a.Instance)
	}
	k = newKeeper(s, record{Assignment: a})
	k.kept = true // by Start, until it is on disk
	s.keepers[a.Instance] = k
	return k, true, nil
}

// Stop lets an instance end its exchanges, stops it, forgets it, and returns when it is gone. One that
// is not known is gone already. When ctx ends first the instance is stopped all the same.
func (s *Supervisor) Stop(ctx context.Context, instance string) error {
	s.mu.Lock()
	k := s.keepers[instance]
	s.mu.Unlock()
	if k == nil {
		return nil
	}
	return k.stop(ctx, true)
}

// StopAll stops every instance at once, without draining, and takes no new one. It returns when all
// are gone. Call it while Run runs.
func (s *Supervisor) StopAll(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	var all []*keeper
	for _, k := range s.keepers {
		all = append(all, k)
	}
	s.mu.Unlock()
	errs := make([]error, len(all))
	var stops sync.WaitGroup
	for i, k := range all {
		stops.Go(func() { errs[i] = k.stop(ctx, false) })
	}
	stops.Wait()
	return errors.Join(errs...)
}

// Probe returns the status of an instance; Exited, and of no service, for one that is not known.
func (s *Supervisor) Probe(_ context.Context, instance string) (fleet.InstanceStatus, error) {
	s.mu.Lock()
	k := s.keepers[instance]
	s.mu.Unlock()
	if k == nil {
		return fleet.InstanceStatus{Instance: instance, Node: s.config.Node, State: fleet.Exited}, nil
	}
	return k.current(), nil
}

// Statuses returns the status of every instance, sorted by id.
func (s *Supervisor) Statuses() []fleet.InstanceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]fleet.InstanceStatus, 0, len(s.keepers))
	for _, k := range s.keepers {
		all = append(all, k.current())
	}
	slices.SortFunc(all, func(a, b fleet.InstanceStatus) int { return cmp.Compare(a.Instance, b.Instance) })
	return all
}

// forget drops an instance that is gone.
func (s *Supervisor) forget(k *keeper) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keepers, k.id)
	return s.store.remove(k.id)
}

// pause waits for d; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
