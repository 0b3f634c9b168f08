// Start measures what it takes to start a built fleet, and what its idle processes occupy: it runs the
// demo's own measurement several times and keeps the medians.
//
//	test/bench/run.sh start [-rounds 3] [-rows FILE]
//
// It needs bin/shoal and ends by itself.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

func main() {
	rounds := flag.Int("rounds", 3, "starts that are measured")
	file := flag.String("rows", "", "add the figures to the list in this JSON file")
	harness.Main("start", func(ctx context.Context) error {
		return harness.Options{Rows: *file}.Run(ctx, []harness.Part{{Name: "start", Measure: func(ctx context.Context, _ string) error { return run(ctx, *rounds, *file) }}})
	})
}

func run(ctx context.Context, rounds int, file string) error {
	found := make(map[string][]float64)
	for range max(rounds, 1) {
		text, err := measure(ctx)
		if err != nil {
			return err
		}
		for _, m := range measures {
			f, err := m.read(text)
			if err != nil {
				return err
			}
			found[m.row.Row] = append(found[m.row.Row], f)
		}
	}
	var all []rows.Row
	for _, m := range measures {
		r := m.row
		r.Ours = harness.Median(found[r.Row])
		fmt.Printf("%s: %.2f %s, the median of %.2f\n", r.Row, r.Ours, r.Unit, found[r.Row])
		all = append(all, r)
	}
	return rows.Save(file, all...)
}

// measure runs the demo once: it builds, starts and stops the shop, and starts it again to measure.
func measure(ctx context.Context) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, 10*time.Minute)
	defer stop()
	c := exec.CommandContext(ctx, "make", "--no-print-directory", "demo")
	c.Env = append(os.Environ(), "DEMO=measure")
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = time.Minute
	text, err := c.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("make demo DEMO=measure: %w\n%s", err, text)
	}
	return text, nil
}

// figure is one that the demo prints.
type figure struct {
	row  rows.Row
	line string // what stands before it
}

var measures = []figure{
	{rows.Row{Row: "shoal up, built, to all five healthy", Sense: "<=", Goal: 2, Unit: "s"}, "to all five healthy: "},
	{rows.Row{Row: "the same services bare, to listening", Unit: "s"}, "bare, to listening: "},
	{rows.Row{Row: "the idle node with five services", Sense: "<=", Goal: 80, Unit: "MB"}, "the idle node: "},
	{rows.Row{Row: "the idle hub", Unit: "MB"}, "the idle hub: "},
}

// read finds the figure in what the demo printed: a duration, or megabytes.
func (f figure) read(text []byte) (float64, error) {
	_, after, ok := bytes.Cut(text, []byte(f.line))
	if !ok {
		return 0, fmt.Errorf("the demo printed nothing after %q", f.line)
	}
	word := regexp.MustCompile(`^[0-9a-zµ.]+`).Find(after)
	if f.row.Unit == "MB" {
		return strconv.ParseFloat(string(word), 64)
	}
	d, err := time.ParseDuration(strings.TrimSpace(string(word)))
	return d.Seconds(), err
}
