package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/test/bench/rows"
)

// report prints a row for each rate: medians, with what the rounds spread over.
func report(w io.Writer, sides []*side) {
	fmt.Fprintf(w, "\nHTTP/1.1, one hop, CPU microseconds of the proxy per request: median [min-max]\n\n")
	fmt.Fprintf(w, "%-12s", "rate")
	for _, s := range sides {
		fmt.Fprintf(w, "%-24s%-16s", s.name, "p50/p99 us")
	}
	fmt.Fprintln(w, "ratio")
	fmt.Fprintln(w, strings.Repeat("-", 12+40*len(sides)+5))
	for _, rate := range rates {
		row(w, sides, rate.perSecond)
	}
}

func row(w io.Writer, sides []*side, rate int) {
	fmt.Fprintf(w, "%-12s", rateName(rate))
	var medians []float64
	for _, s := range sides {
		costs := s.costs(rate)
		p50 := collect(s.results[rate], func(r result) time.Duration { return r.p50 })
		p99 := collect(s.results[rate], func(r result) time.Duration { return r.p99 })
		medians = append(medians, median(costs))
		fmt.Fprintf(w, "%-24s%-16s",
			fmt.Sprintf("%.1f [%.1f-%.1f]", median(costs), costs[0], costs[len(costs)-1]),
			fmt.Sprintf("%d/%d", median(p50).Microseconds(), median(p99).Microseconds()))
	}
	if len(medians) == 2 {
		fmt.Fprintf(w, "%.2f", medians[0]/medians[1])
	}
	fmt.Fprintln(w)
}

// measured returns what report prints, as rows.
func measured(sides []*side) []rows.Row {
	var all []rows.Row
	for _, rate := range rates {
		r := rows.Row{Row: "HTTP/1.1, one hop, " + rateName(rate.perSecond), Unit: "CPU µs/request", Ours: median(sides[0].costs(rate.perSecond))}
		if len(sides) == 2 {
			r.Peer = median(sides[1].costs(rate.perSecond))
			r.Ratio, r.Sense, r.Goal = r.Ours/r.Peer, "<=", rate.goal
		}
		all = append(all, r)
	}
	return all
}

func rateName(rate int) string {
	if rate == 0 {
		return "saturation"
	}
	return fmt.Sprintf("%d/s", rate)
}

// costs are CPU microseconds per request, of each round, sorted.
func (s *side) costs(rate int) []float64 {
	return collect(s.results[rate], func(r result) float64 { return float64(r.cpu.Nanoseconds()) / 1e3 / float64(r.requests) })
}

// collect returns one figure of each result, sorted.
func collect[T cmp.Ordered](results []result, of func(result) T) []T {
	var all []T
	for _, r := range results {
		all = append(all, of(r))
	}
	slices.Sort(all)
	return all
}

func median[T any](sorted []T) T { return sorted[len(sorted)/2] }
