package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// together runs n askers side by side and gathers how long their answers took.
func together(n int, run func(i int) ([]time.Duration, error)) ([]time.Duration, error) {
	var (
		mu   sync.Mutex
		all  []time.Duration
		errs []error
		wg   sync.WaitGroup
	)
	for i := range n {
		wg.Go(func() {
			took, err := run(i)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		return all, fmt.Errorf("%d of %d askers failed: %w", len(errs), n, errs[0])
	}
	return all, nil
}

// Offer has n askers keep to rate together until the time given, as Load says; each is told when it was due.
func Offer(ctx context.Context, until time.Time, rate Rate, n int, ask func(due time.Time) error) ([]time.Duration, error) {
	return together(n, func(int) ([]time.Duration, error) { return paced(ctx, until, rate, n, ask) })
}

// backlog is how far an asker may fall behind what it should offer.
const backlog = 10 * time.Second

// paced asks again and again, as one of n that keep to rate together, from a start by chance. It returns how
// long answers took: from when they were asked for, or, where the loop is open, from when they were due, so
// that a wait for the answer before is not left out. It asks at least once, however late the machine lets it begin.
func paced(ctx context.Context, until time.Time, rate Rate, n int, ask func(due time.Time) error) (took []time.Duration, err error) {
	c, err := newClock(rate.Open)
	if err != nil {
		return nil, err
	}
	defer c.close()
	every := rate.every(n)
	due := time.Now().Add(time.Duration(rand.Float64() * float64(every)))
	for ctx.Err() == nil && (len(took) == 0 || due.Before(until)) {
		if err := c.wait(due); err != nil {
			return took, err
		}
		if !rate.Open {
			due = time.Now()
		}
		if err := ask(due); err != nil {
			return took, err
		}
		now := time.Now()
		took = append(took, now.Sub(due))
		due = due.Add(every)
		if !rate.Open && due.Before(now) {
			due = now
		}
		if now.Sub(due) > backlog {
			return took, errors.New("this machine does not keep up with the rate that is offered")
		}
	}
	return took, ctx.Err()
}

// every is how often each of n askers asks, so that they keep to the rate together; 0: at once again.
func (r Rate) every(n int) time.Duration {
	if r.PerSecond == 0 {
		return 0
	}
	return time.Second * time.Duration(n) / time.Duration(r.PerSecond)
}
