package deploy

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Engine keeps the fleet as it was asked to be: the shell around [Step]. Make one with [New].
type Engine struct {
	config Config
	wake   chan struct{} // holds a token while the queue may have messages
	ended  chan struct{} // closed when Run returns
	work   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	queue  []message
	status []fleet.ServiceStatus
}

// message is an input, or a question, on its way to the goroutine of Run.
type message struct {
	in Input // nil: only a question
	// until is asked after each step; done gets its error once it is met. nil: met at once.
	until func(s *State) (met bool, err error)
	done  chan<- error // nil: nobody waits
}

// New returns an engine that wants nothing yet. It does nothing until Run.
func New(c Config) (*Engine, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.ProbeInterval == 0 {
		c.ProbeInterval = 10 * time.Second
	}
	if c.Progress == nil {
		c.Progress = func(fleet.Progress) {}
	}
	return &Engine{config: c, wake: make(chan struct{}, 1), ended: make(chan struct{})}, nil
}

// Run carries out what the other methods ask for, until ctx ends; it then returns nil and leaves
// instances as they are. It waits for actions under way, whose contexts end with ctx. Call it once.
func (e *Engine) Run(ctx context.Context) error {
	defer close(e.ended)
	defer e.work.Wait()
	state := NewState(e.config.Node, e.config.ProbeInterval)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var waiting []message
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			e.push(message{in: Tick{}})
		case <-e.wake:
			for _, m := range e.take() {
				state, waiting = e.handle(ctx, state, waiting, m)
			}
			e.publish(&state)
			waiting = settle(waiting, &state) // after publish: who has waited sees what it waited for
			setTimer(timer, &state)
		}
	}
}

// handle takes one message through Step, and adds it to those whose sender waits.
func (e *Engine) handle(ctx context.Context, state State, waiting []message, m message) (State, []message) {
	if m.in != nil {
		if err := state.check(m.in); err != nil {
			m.answer(err)
			return state, waiting
		}
		var actions []Action
		state, actions = Step(state, time.Now(), m.in)
		for _, a := range actions {
			e.do(ctx, a)
		}
	}
	if m.done != nil {
		waiting = append(waiting, m)
	}
	return state, waiting
}

// settle answers those whose condition is met and returns the others.
func settle(waiting []message, s *State) []message {
	rest := waiting[:0]
	for _, w := range waiting {
		if !w.settle(s) {
			rest = append(rest, w)
		}
	}
	return rest
}

func (m message) answer(err error) {
	if m.done != nil {
		m.done <- err // buffered: whoever waited may have left
	}
}

func (m message) settle(s *State) bool {
	if m.until == nil {
		m.answer(nil)
		return true
	}
	met, err := m.until(s)
	if met || err != nil {
		m.answer(err)
	}
	return met || err != nil
}

// do executes an action; its end comes back as an input.
func (e *Engine) do(ctx context.Context, a Action) {
	switch a := a.(type) {
	case Tell:
		e.config.Progress(a.Progress)
	case Apply:
		e.spawn(func() Input { return Applied{e.config.Apply(ctx, a.Change)} })
	case Start:
		e.spawn(func() Input { return Started{a.Assignment.Instance, e.config.Driver.Start(ctx, a.Node, a.Assignment)} })
	case Stop:
		e.spawn(func() Input { return Gone{a.Instance, e.config.Driver.Stop(ctx, a.Node, a.Instance)} })
	case Probe:
		e.spawn(func() Input {
			status, err := e.config.Driver.Probe(ctx, a.Node, a.Instance)
			return Probed{a.Instance, status, err}
		})
	}
}

func (e *Engine) spawn(action func() Input) {
	e.work.Go(func() { e.push(message{in: action()}) })
}

// push queues a message; it never blocks.
func (e *Engine) push(m message) {
	e.mu.Lock()
	e.queue = append(e.queue, m)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *Engine) take() []message {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.queue
	e.queue = nil
	return all
}

func (e *Engine) publish(s *State) {
	status := s.Status()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status = status
}

func setTimer(t *time.Timer, s *State) {
	t.Stop()
	if at, ok := s.Wake(); ok {
		t.Reset(time.Until(at))
	}
}

var errEnded = errors.New("the hub is shutting down")

// ask queues an input (nil: none) and waits until it was taken and until is met.
func (e *Engine) ask(ctx context.Context, in Input, until func(*State) (bool, error)) error {
	done := make(chan error, 1)
	e.push(message{in: in, until: until, done: done})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-e.ended:
		return errEnded
	}
}
