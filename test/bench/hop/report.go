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
		printRate(w, sides, rate.perSecond)
	}
}

func printRate(w io.Writer, sides []*side, rate int) {
	fmt.Fprintf(w, "%-12s", rateName(rate))
	for _, s := range sides {
		fmt.Fprintf(w, "%-24s%-16s", s.spread(rate), fmt.Sprintf("%.0f/%.0f", s.latency(rate, p50), s.latency(rate, p99)))
	}
	if ours, peer := named(sides, "shoal"), named(sides, "haproxy"); peer != nil {
		fmt.Fprintf(w, "%.2f", median(ours.costs(rate))/median(peer.costs(rate)))
	}
	fmt.Fprintln(w)
}

// measured returns what report prints, as rows.
func measured(sides []*side) []rows.Row {
	var all []rows.Row
	direct, ours, peer := named(sides, "direct"), named(sides, "shoal"), named(sides, "haproxy")
	for _, rate := range rates {
		cost := rows.Row{Row: "HTTP/1.1, one hop, " + rateName(rate.perSecond), Unit: "CPU µs", Ours: median(ours.costs(rate.perSecond))}
		if peer != nil {
			cost.Peer = median(peer.costs(rate.perSecond))
			cost.Ratio, cost.Sense, cost.Goal = cost.Ours/cost.Peer, "<=", rate.goal
		}
		all = append(all, cost)
		if rate.perSecond == 0 {
			continue // as many as go through are not as many for both
		}
		took := rows.Row{
			Row: "p50 of an answer, " + rateName(rate.perSecond) + ", beside a direct call", Unit: "µs",
			Ours: ours.latency(rate.perSecond, p50), Peer: direct.latency(rate.perSecond, p50),
		}
		took.Ratio = took.Ours / took.Peer
		all = append(all, took)
	}
	return all
}

// named returns a side, or nil.
func named(sides []*side, name string) *side {
	for _, s := range sides {
		if s.name == name {
			return s
		}
	}
	return nil
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

// spread writes the costs as the report does.
func (s *side) spread(rate int) string {
	if s.process == nil {
		return ""
	}
	costs := s.costs(rate)
	return fmt.Sprintf("%.1f [%.1f-%.1f]", median(costs), costs[0], costs[len(costs)-1])
}

func p50(r result) time.Duration { return r.p50 }
func p99(r result) time.Duration { return r.p99 }

// latency is the median over the rounds, in microseconds.
func (s *side) latency(rate int, of func(result) time.Duration) float64 {
	return float64(median(collect(s.results[rate], of)).Microseconds())
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
