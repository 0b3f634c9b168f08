package harness

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/test/bench/rows"
)

// Report prints a row for each rate: medians of CPU microseconds per request, with what the rounds spread
// over, and the ratio of the side called ours to the one called peer.
func Report(w io.Writer, title string, rates []Rate, sides []*Side, ours, peer string) {
	fmt.Fprintf(w, "\n%s, CPU microseconds of the proxies per request: median [min-max]\n\n", title)
	fmt.Fprintf(w, "%-12s", "rate")
	for _, s := range sides {
		fmt.Fprintf(w, "%-24s%-16s", s.Name, "p50/p99 us")
	}
	fmt.Fprintln(w, "ratio")
	fmt.Fprintln(w, strings.Repeat("-", 12+40*len(sides)+5))
	for _, rate := range rates {
		if len(sides[0].Results[rate.PerSecond]) == 0 {
			continue
		}
		fmt.Fprintf(w, "%-12s", rate)
		for _, s := range sides {
			fmt.Fprintf(w, "%-24s%-16s", s.spread(rate.PerSecond), fmt.Sprintf("%.0f/%.0f", s.latency(rate.PerSecond, p50), s.latency(rate.PerSecond, p99)))
		}
		if o, p := Named(sides, ours), Named(sides, peer); p != nil {
			fmt.Fprintf(w, "%.2f", o.Cost(rate.PerSecond)/p.Cost(rate.PerSecond))
		}
		fmt.Fprintln(w)
	}
}

// Costs returns a row for each rate that has results, whose name begins with title. A peer is missing where the program of its name is not installed.
func Costs(title string, rates []Rate, sides []*Side, ours, peer string) (all []rows.Row) {
	o, p := Named(sides, ours), Named(sides, peer)
	for _, rate := range rates {
		if len(o.Results[rate.PerSecond]) == 0 {
			continue
		}
		r := rows.Row{Row: title + ", " + rate.String(), Unit: "CPU µs", Ours: o.Cost(rate.PerSecond)}
		if p == nil {
			r.Skipped = Without(peer)
		} else {
			r.Peer = p.Cost(rate.PerSecond)
			r.Ratio = r.Ours / r.Peer
			if rate.Goal > 0 {
				r.Sense, r.Goal = "<=", rate.Goal
			}
		}
		all = append(all, r)
	}
	return all
}

// Without says why a row has no peer.
func Without(program string) string { return "not compared: apt-get install " + program }

// Named returns a side, or nil.
func Named(sides []*Side, name string) *Side {
	for _, s := range sides {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func (r Rate) String() string {
	if r.PerSecond == 0 {
		return "saturation"
	}
	return fmt.Sprintf("%d/s", r.PerSecond)
}

// Cost is the median of CPU microseconds per request.
func (s *Side) Cost(rate int) float64 { return Median(s.costs(rate)) }

// costs are CPU microseconds per request, of each round, sorted.
func (s *Side) costs(rate int) []float64 {
	return collect(s.Results[rate], func(r Result) float64 { return float64(r.CPU.Nanoseconds()) / 1e3 / float64(r.Requests) })
}

// spread writes the costs as the report does.
func (s *Side) spread(rate int) string {
	costs := s.costs(rate)
	return fmt.Sprintf("%.1f [%.1f-%.1f]", Median(costs), costs[0], costs[len(costs)-1])
}

func p50(r Result) time.Duration { return r.P50 }
func p99(r Result) time.Duration { return r.P99 }

// Tail is the median over the rounds of the 99th percentile of the time of an answer, in microseconds.
func (s *Side) Tail(rate int) float64 { return s.latency(rate, p99) }

func (s *Side) latency(rate int, of func(Result) time.Duration) float64 {
	return float64(Median(collect(s.Results[rate], of)).Microseconds())
}

// collect returns one figure of each result, sorted.
func collect[T cmp.Ordered](results []Result, of func(Result) T) []T {
	var all []T
	for _, r := range results {
		all = append(all, of(r))
	}
	slices.Sort(all)
	return all
}

// Throughput is the median of answers a second.
func (s *Side) Throughput(rate int) int {
	return Median(collect(s.Results[rate], func(r Result) int { return int(float64(r.Requests) / r.Elapsed.Seconds()) }))
}

// Added is by how much the figure of each round exceeds that of a direct side in the same round, sorted.
func (s *Side) Added(direct *Side, rate int, of func(Result) time.Duration) []time.Duration {
	var all []time.Duration
	for i, r := range s.Results[rate] {
		all = append(all, of(r)-of(direct.Results[rate][i]))
	}
	slices.Sort(all)
	return all
}
