// Package harness has what the measures of proxies have in common: processes, the load that is put on
// them, the CPU time that it costs them, and the report. Sides take turns, since machines are noisy, and
// medians are compared.
//
// It stands beside the three walks. Nothing in it is safe for concurrent use.
package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"
)

// Side is one of the ways to a server that are compared.
type Side struct {
	Name      string
	Address   string
	Processes []*exec.Cmd // the proxies; none where there are none
	Results   map[int][]Result
}

// NewSide returns one without results.
func NewSide(name, address string, processes ...*exec.Cmd) *Side {
	return &Side{name, address, processes, map[int][]Result{}}
}

// Result is one measurement of one side.
type Result struct {
	Requests int
	CPU      time.Duration // of the proxies, in all
	Elapsed  time.Duration
	P50, P99 time.Duration
}

// Rate is how many requests a second are offered in all, 0 being as many as go through, and what ours may
// cost then, as a part of the peer's cost; 0: no goal.
//
// A request that an earlier one on its connection holds up is sent late, and those that follow are moved with
// it; unless the rate is Open: then they stay due at their times, which are kept exactly.
type Rate struct {
	PerSecond int
	Goal      float64
	Open      bool
}

// Load asks at address until the time given, at a rate, and returns how long each answer took.
type Load func(ctx context.Context, address string, until time.Time, rate Rate) ([]time.Duration, error)

// MeasureAll measures all sides at all rates, in turn; the first round warms up and does not count. A rate at which a side fails has no results,
// and the others are measured all the same.
func MeasureAll(ctx context.Context, rounds int, length time.Duration, rates []Rate, sides []*Side, load Load) error {
	return MeasureBy(ctx, rounds, rates, sides, func(s *Side, rate Rate) (Result, error) { return s.measure(ctx, length, rate, load) })
}

// MeasureBy is MeasureAll by a measurement of the caller's.
func MeasureBy(ctx context.Context, rounds int, rates []Rate, sides []*Side, measure func(*Side, Rate) (Result, error)) error {
	var errs []error
	for _, rate := range rates {
		if err := measureRate(ctx, rounds, rate, sides, measure); err != nil {
			errs = append(errs, err)
			for _, s := range sides {
				delete(s.Results, rate.PerSecond)
			}
		}
	}
	return errors.Join(errs...)
}

func measureRate(ctx context.Context, rounds int, rate Rate, sides []*Side, measure func(*Side, Rate) (Result, error)) error {
	for round := range rounds + 1 {
		for _, s := range sides {
			r, err := measure(s, rate)
			if err := errors.Join(err, ctx.Err()); err != nil {
				return fmt.Errorf("%s, %s: %w", s.Name, rate, err)
			}
			if round > 0 {
				s.Results[rate.PerSecond] = append(s.Results[rate.PerSecond], r)
			}
		}
	}
	return nil
}

func (s *Side) measure(ctx context.Context, length time.Duration, rate Rate, load Load) (Result, error) {
	before, err := s.cpuTime()
	if err != nil {
		return Result{}, err
	}
	began := time.Now()
	took, err := load(ctx, s.Address, began.Add(length), rate)
	elapsed := time.Since(began)
	after, cpuErr := s.cpuTime()
	if err := errors.Join(err, cpuErr); err != nil {
		return Result{}, err
	}
	if len(took) == 0 {
		return Result{}, errors.New("no request was answered")
	}
	r := Summary(took)
	r.CPU, r.Elapsed = after-before, elapsed
	return r, nil
}

// Summary is the result of a load, of which there must be an answer, without what it cost. It sorts.
func Summary(took []time.Duration) Result {
	slices.Sort(took)
	return Result{Requests: len(took), P50: Percentile(took, 50), P99: Percentile(took, 99)}
}

// cpuTime is what the proxies have used so far.
func (s *Side) cpuTime() (sum time.Duration, err error) {
	for _, p := range s.Processes {
		t, err := CPUTime(p.Process.Pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// Resident is how many bytes of memory the proxies occupy now.
func (s *Side) Resident() (sum int, err error) {
	for _, p := range s.Processes {
		n, err := Resident(p.Process.Pid)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// Median of figures in any order. There must be one.
func Median[T cmp.Ordered](all []T) T { return Percentile(slices.Sorted(slices.Values(all)), 50) }

// Percentile is the smallest of the figures that at least so many of a hundred do not exceed. There must be
// one.
func Percentile[T any](sorted []T, percent int) T {
	n := (len(sorted)*percent + 99) / 100
	return sorted[max(n, 1)-1]
}
