package process

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// keeper looks after one instance through all its starts. Its goroutine is run; other goroutines ask
// it to stop, or change its Debug flag.
type keeper struct {
	s        *Supervisor
	id       string
	course   course
	kept     bool    // its goroutine was started; guarded by Supervisor.mu
	adopted  Process // runs already; nil: to be launched
	asked    context.Context
	askStop  context.CancelFunc
	rushed   context.Context // ends when open exchanges need not end any more
	rush     context.CancelFunc
	done     chan struct{} // closed when the instance is gone and forgotten
	debugged chan struct{} // holds a token after the Debug flag changed

	mu     sync.Mutex // guards what follows
	record record
	status fleet.InstanceStatus
}

func newKeeper(s *Supervisor, r record) *keeper {
	a := r.Assignment
	k := &keeper{s: s, id: a.Instance, record: r, done: make(chan struct{}), debugged: make(chan struct{}, 1)}
	k.asked, k.askStop = context.WithCancel(context.Background())
	k.rushed, k.rush = context.WithCancel(context.Background())
	k.course = course{attempts: s.config.Attempts, timeout: healthTimeout(a), begun: time.Now(), ready: r.Ready}
	k.status = fleet.InstanceStatus{Instance: a.Instance, Service: a.Service, Worker: a.Worker, Node: s.config.Node,
		Release: a.Release.ID, State: fleet.Starting, Mode: a.Mode, Started: r.Started, Restarts: r.Restarts}
	return k
}

func healthTimeout(a fleet.Assignment) time.Duration {
	if a.HealthTimeout > 0 {
		return time.Duration(a.HealthTimeout)
	}
	return 60 * time.Second
}

// resume sets the status of an instance that an earlier supervisor kept.
func (k *keeper) resume() {
	switch {
	case k.record.Final != nil:
		k.status = *k.record.Final
	case k.adopted != nil && k.record.Ready:
		k.status.State, k.status.PID = fleet.Ready, pid(k.adopted)
	case k.adopted == nil && k.record.Assignment.Once:
		k.status.State = fleet.Failed
		k.status.Failure = "it ended while the node was away, so its exit code is unknown; restart the service to run it again"
		k.record.Final = &k.status
	case k.adopted == nil && !k.record.Started.IsZero():
		k.status.Restarts++
	}
	k.report()
}

// run keeps the instance until it is stopped, or until ctx ends: then it leaves it running.
func (k *keeper) run(ctx context.Context) {
	life, cancel := context.WithCancel(ctx) // ends when a stop is asked for, too
	defer cancel()
	defer context.AfterFunc(k.asked, cancel)()
	for k.again(life, k.attempt(life)) {
	}
	if k.asked.Err() != nil && ctx.Err() == nil {
		k.end(ctx)
	}
}

// end is what one start of the application came to.
type end struct {
	failure string
	code    int
	log     []string
	healthy time.Duration // for how long it was ready
	done    bool          // a `before` that ended well
}

// attempt starts the application, or takes over the adopted one, and returns when it has ended, or
// when life does.
func (k *keeper) attempt(life context.Context) end {
	if k.final() {
		<-life.Done()
		return end{}
	}
	p := k.adopted
	if p == nil {
		var err error
		if p, err = k.launch(life); err != nil {
			return end{failure: err.Error()}
		}
	}
	k.adopted = p
	alive, cancel := context.WithCancel(life) // ends with the application, too
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-p.Done():
			cancel()
		case <-alive.Done():
		}
	})
	e := k.attend(alive, p)
	if life.Err() == nil {
		k.adopted = nil
	}
	return e
}

// attend watches the application's health until it has ended, or life has, or it is given up.
func (k *keeper) attend(alive context.Context, p Process) end {
	started := k.current().Started
	if k.assignment().Once {
		<-alive.Done()
		return k.exited(p, started, 0)
	}
	if k.current().State != fleet.Ready {
		if failure := k.gate(alive); failure != "" {
			e := end{failure: failure + k.hint(p) + k.ignored(started), log: tail(p)}
			k.halt(alive, p)
			return e
		}
		if alive.Err() == nil {
			k.becameReady()
		}
	}
	readySince := time.Now()
	k.tend(alive)
	healthy := time.Since(readySince)
	if k.current().State == fleet.Starting {
		healthy = 0
	}
	return k.exited(p, started, healthy)
}

// exited reads how the application ended. It means nothing while the application runs on.
func (k *keeper) exited(p Process, started time.Time, healthy time.Duration) end {
	select {
	case <-p.Done():
	default:
		return end{}
	}
	code, failure := p.Exit()
	if k.assignment().Once && code == 0 && failure == "" {
		return end{done: true}
	}
	if failure == "" {
		failure = fmt.Sprintf("exited with code %d", code)
	}
	failure += " after " + span(time.Since(started)) + k.ignored(started)
	if healthy == 0 && !k.assignment().Once {
		failure += k.portHint(p)
	}
	return end{failure: failure, code: code, log: tail(p), healthy: healthy}
}

// again takes the end of an attempt and waits until the next one is due; false: there is none.
func (k *keeper) again(life context.Context, e end) bool {
	if life.Err() != nil {
		return false
	}
	if e.done {
		k.give(fleet.Exited, e)
		return true
	}
	wait, giveUp := k.course.ended(time.Now(), e.healthy)
	if k.assignment().Once || giveUp && !k.debug() {
		if k.course.exits > 1 {
			e.failure += fmt.Sprintf(", at the last of %d starts", k.course.exits)
		}
		k.give(fleet.Failed, e)
		return true
	}
	k.set(func(s *fleet.InstanceStatus) {
		s.State, s.PID, s.ExitCode, s.Failure, s.LastLog = fleet.Crashed, 0, e.code, e.failure, e.log
	})
	if !k.wait(life, wait) {
		return false
	}
	k.set(func(s *fleet.InstanceStatus) { s.Restarts++ })
	return true
}

// wait lets a backoff pass, and as long as the service is debugged.
func (k *keeper) wait(life context.Context, d time.Duration) bool {
	if !pause(life, d) {
		return false
	}
	for k.debug() {
		select {
		case <-life.Done():
			return false
		case <-k.debugged:
		}
	}
	return true
}
