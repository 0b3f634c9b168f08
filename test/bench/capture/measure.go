package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// measure measures both sides at all rates, in turn; the first round warms up and does not count.
func (p part) measure(ctx context.Context, o options, f *running, bare string) error {
	ours, without := harness.NewSide("shoal", "server:80"), harness.NewSide("no Shoal", bare)
	sides := []*harness.Side{ours, without}
	err := harness.MeasureBy(ctx, o.Rounds, p.rates, sides, func(s *harness.Side, rate harness.Rate) (harness.Result, error) {
		return p.once(ctx, o, f, s, rate)
	})
	harness.Report(os.Stdout, p.name, p.rates, sides, ours.Name, without.Name)
	return errors.Join(err, rows.Save(o.Rows, harness.Costs(p.name, p.rates, sides, ours.Name, without.Name)...))
}

// once runs a client, in its namespace or bare, and reads the CPU clocks when it begins and when it ends.
func (p part) once(ctx context.Context, o options, f *running, s *harness.Side, rate harness.Rate) (harness.Result, error) {
	self, err := os.Executable()
	if err != nil {
		return harness.Result{}, err
	}
	args := []string{self, "-role", "client", "-address", s.Address, "-each=" + strconv.FormatBool(p.each),
		"-rate", strconv.Itoa(rate.PerSecond), "-time", o.Time.String()}
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	if s.Name == "shoal" {
		c = f.Command(ctx, append([]string{"exec", "client", "--"}, args...)...)
	}
	c.Stderr = os.Stderr
	harness.EndWithParent(c)
	out, err := c.StdoutPipe()
	if err != nil {
		return harness.Result{}, err
	}
	in, err := c.StdinPipe()
	if err != nil {
		return harness.Result{}, err
	}
	if err := c.Start(); err != nil {
		return harness.Result{}, err
	}
	r, err := readClient(json.NewDecoder(out))
	r.CPU -= time.Duration(f.idle * float64(r.Elapsed))
	in.Close()
	if ended := c.Wait(); ended != nil {
		return r, fmt.Errorf("the client: %w", ended)
	}
	return r, err
}

// readClient reads what a client says, and what all processes use in the meantime.
func readClient(d *json.Decoder) (r harness.Result, err error) {
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("the client did not begin: %w", err)
	}
	before, err := harness.FamilyCPU(os.Getpid())
	if err != nil {
		return r, err
	}
	began := time.Now()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("the client did not end: %w", err)
	}
	after, err := harness.FamilyCPU(os.Getpid())
	r.CPU, r.Elapsed = after-before, time.Since(began)
	return r, err
}

// watchIdle learns what all processes use while nobody asks, the kernel's threads above all.
func (f *running) watchIdle(ctx context.Context, length time.Duration) error {
	before, err := harness.FamilyCPU(os.Getpid())
	if err != nil {
		return err
	}
	began := time.Now()
	select {
	case <-time.After(length):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := harness.FamilyCPU(os.Getpid())
	f.idle = float64(after-before) / float64(time.Since(began))
	fmt.Printf("\nidle: %.1f %% of a processor\n", 100*f.idle)
	return err
}
