package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
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
		row(w, sides, rate)
	}
}

func row(w io.Writer, sides []*side, rate int) {
	name := fmt.Sprintf("%d/s", rate)
	if rate == 0 {
		name = "saturation"
	}
	fmt.Fprintf(w, "%-12s", name)
	var medians []float64
	for _, s := range sides {
		costs := collect(s.results[rate], func(r result) float64 { return float64(r.cpu.Nanoseconds()) / 1e3 / float64(r.requests) })
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
