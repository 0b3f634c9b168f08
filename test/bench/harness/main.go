package harness

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"github.com/shoalrun/shoal/test/bench/rows"
)

// Options are the flags that all programs of measures have.
type Options struct {
	Rounds  int           // of each side, at each rate
	Time    time.Duration // of a measurement
	Only    string        // what the names of parts have to contain
	Profile string        // the folder of profiles; empty: none
	Rows    string        // the file with the list of figures; empty: none
}

// Define defines the flags, with their defaults.
func (o *Options) Define() {
	flag.IntVar(&o.Rounds, "rounds", 5, "measurements of each side at each rate")
	flag.DurationVar(&o.Time, "time", 3*time.Second, "length of a measurement")
	flag.StringVar(&o.Only, "only", "", "measure only the parts whose names contain this")
	flag.StringVar(&o.Profile, "profile", "", "write CPU profiles of our processes into this folder")
	flag.StringVar(&o.Rows, "rows", "", "add the figures to the list in this JSON file")
}

// Main is the main function of a program of measures, whose flags are defined: it runs until it is done or interrupted, and ends the process
// with 1 where something went wrong.
func Main(name string, run func(context.Context) error) {
	runtime.LockOSThread() // children end with the thread that started them: this one
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Part is one of the measures of a program. What it starts ends with its context, and its folder is removed after it.
type Part struct {
	Name    string
	Measure func(ctx context.Context, dir string) error
}

// Run runs the parts that are asked for. One that fails stands in the list of figures as failed, and those after it run all the same.
func (o Options) Run(ctx context.Context, parts []Part) error {
	var errs []error
	for _, p := range parts {
		if !strings.Contains(p.Name, o.Only) {
			continue
		}
		err := p.run(ctx)
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		if err != nil {
			fmt.Printf("\n%s: failed: %v\n", p.Name, err)
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err), rows.Save(o.Rows, rows.Row{Row: p.Name, Failed: err.Error()}))
		}
	}
	return errors.Join(errs...)
}

func (p Part) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "bench") // short: sockets are in it
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // an application may be another user
		return err
	}
	return p.Measure(ctx, dir)
}
