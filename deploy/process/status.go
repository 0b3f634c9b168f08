package process

import (
	"fmt"
	"slices"

	"github.com/shoalrun/shoal/fleet"
)

// give ends the attempts for good; the instance is remembered until it is stopped.
func (k *keeper) give(state fleet.InstanceState, e end) {
	k.set(func(s *fleet.InstanceStatus) {
		s.State, s.PID, s.ExitCode, s.Failure, s.LastLog = state, 0, e.code, e.failure, e.log
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	final := k.status
	k.record.Final = &final
	k.saveLocked()
}

// becameReady notes that the application is healthy for the first time since its start.
func (k *keeper) becameReady() {
	k.course.ready = true
	k.set(func(s *fleet.InstanceStatus) { s.State, s.Failure, s.LastLog, s.ExitCode = fleet.Ready, "", nil, 0 })
	k.mu.Lock()
	defer k.mu.Unlock()
	k.record.Ready, k.record.Started, k.record.Restarts = true, k.status.Started, k.status.Restarts
	k.saveLocked()
}

// saveLocked keeps the record. A disk that is full must not stop an instance that runs: what is lost
// is only how it stood, and the status tells.
func (k *keeper) saveLocked() {
	if err := k.s.store.save(k.record); err != nil && k.status.Failure == "" {
		k.status.Failure = err.Error()
		k.s.reports.add(k.status)
	}
}

// set changes the status and reports it.
func (k *keeper) set(change func(*fleet.InstanceStatus)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&k.status)
	k.s.reports.add(k.status)
}

func (k *keeper) report() { k.set(func(*fleet.InstanceStatus) {}) }

func (k *keeper) current() fleet.InstanceStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.status
	s.LastLog = slices.Clone(s.LastLog)
	return s
}

func (k *keeper) assignment() fleet.Assignment {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.record.Assignment
}

func (k *keeper) final() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.record.Final != nil
}

func (k *keeper) debug() bool { return k.assignment().Debug }

func (k *keeper) setDebug(on bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.asked.Err() != nil {
		return fmt.Errorf("process: %s is being stopped", k.id)
	}
	k.s.reports.add(k.status)
	if k.record.Assignment.Debug == on {
		return nil
	}
	k.record.Assignment.Debug = on
	select {
	case k.debugged <- struct{}{}:
	default:
	}
	return k.s.store.save(k.record)
}
