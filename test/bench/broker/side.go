package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// size is that of a message's data, in bytes.
const size = 256

// side is one of those that are compared: measure returns how many messages a second went through.
type side struct {
	name    string
	measure func(ctx context.Context, length time.Duration) (float64, error)
}

// alternate measures all sides in turn and returns the median of each; the first round warms up and does not count.
func alternate(ctx context.Context, o options, title string, sides []side) ([]float64, error) {
	figures := make([][]float64, len(sides))
	for round := range o.Rounds + 1 {
		for i, s := range sides {
			f, err := s.measure(ctx, o.Time)
			if err == nil && f == 0 {
				err = errors.New("nothing went through")
			}
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", title, s.name, err)
			}
			if round > 0 {
				figures[i] = append(figures[i], f)
			}
		}
	}
	fmt.Printf("\n%s, messages a second\n", title)
	medians := make([]float64, len(sides))
	for i, s := range sides {
		medians[i] = harness.Median(figures[i])
		fmt.Printf("  %-24s %8.0f, the median of %.0f\n", s.name, medians[i], figures[i])
	}
	return medians, nil
}

// beside is the row of a comparison of messages a second; a goal of 0 is none.
func beside(name string, goal, ours, peer float64) rows.Row {
	r := rows.Row{Row: name, Unit: "messages/s", Ours: ours, Peer: peer, Ratio: ours / peer}
	if goal > 0 {
		r.Sense, r.Goal = ">=", goal
	}
	return r
}

// alone is that row where the peer's program is not installed.
func alone(name string, ours float64, program string) rows.Row {
	return rows.Row{Row: name, Unit: "messages/s", Ours: ours, Skipped: harness.Without(program)}
}

// errDone ends a publisher in good order.
var errDone = errors.New("done")

// flood has n publishers do one thing again and again, each the next when the last is done, and returns how many were done a second.
func flood(ctx context.Context, n int, length time.Duration, do func(ctx context.Context, i int) error) (float64, error) {
	var (
		wg   sync.WaitGroup
		done atomic.Int64
		mu   sync.Mutex
		errs []error
	)
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			for first := true; ctx.Err() == nil && (first || time.Since(began) < length); first = false {
				err := do(ctx, i)
				if errors.Is(err, errDone) {
					return
				}
				if err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(began).Seconds(), errors.Join(errs...)
}
