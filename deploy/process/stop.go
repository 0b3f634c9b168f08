package process

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// stop asks for the end of the instance and waits for it.
func (k *keeper) stop(ctx context.Context, drain bool) error {
	if !drain {
		k.rush()
	}
	k.askStop()
	select {
	case <-k.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("process: %s is still being stopped: %w", k.id, ctx.Err())
	case <-k.s.ended:
		return fmt.Errorf("process: %s was not stopped: the supervisor has ended", k.id)
	}
}

// end drains and stops what runs, and forgets the instance.
func (k *keeper) end(ctx context.Context) {
	if p := k.adopted; p != nil {
		k.set(func(s *fleet.InstanceStatus) { s.State = fleet.Stopping })
		k.drain(ctx)
		k.halt(ctx, p)
		if ctx.Err() != nil {
			return
		}
	}
	for k.s.forget(k) != nil { // else it would come back with the next node
		if !pause(ctx, longestWait) {
			return
		}
	}
	k.set(func(s *fleet.InstanceStatus) { s.State, s.PID = fleet.Exited, 0 })
	close(k.done)
}

// drain lets open exchanges end, within DrainTimeout. What is then still open is cut.
func (k *keeper) drain(ctx context.Context) {
	if k.rushed.Err() != nil || k.s.config.Drain == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, k.s.config.DrainTimeout)
	defer cancel()
	defer context.AfterFunc(k.rushed, cancel)()
	_ = k.s.config.Drain(ctx, k.id) // its only error is that time is up
}

// halt stops the application and returns when it is gone, or when ctx has ended. A stop that fails is
// tried again: to forget what still runs would leave it running for ever.
func (k *keeper) halt(ctx context.Context, p Process) {
	grace := time.Duration(k.assignment().Grace)
	orDefault(&grace, 10*time.Second)
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		err := p.Stop(ctx, grace)
		select {
		case <-p.Done():
			return
		default:
		}
		if err != nil {
			k.set(func(s *fleet.InstanceStatus) { s.Failure = "cannot be stopped: " + err.Error() })
		}
		if !pause(ctx, wait) {
			return
		}
	}
}
