package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

func (a *app) wait() *cobra.Command {
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "wait [SERVICE...]", Short: "Wait until services are healthy",
		Long:              "Wait until services are healthy; none named: all that were asked to run.\nFails at once where one has failed for good, with its last log lines.",
		ValidArgsFunction: a.completeServices,
	}
	cmd.Flags().DurationVar(&limit, "timeout", 2*time.Minute, "give up after this `TIME`")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		bound, stop := context.WithTimeout(ctx, limit)
		defer stop()
		last, err := settled(bound, c, args)
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("not healthy after %v: %s", limit, cmp.Or(and(unready(last, args)), "no service has been started yet"))
		}
		if err != nil {
			a.showFailed(last)
			return err
		}
		return nil
	})
	return cmd
}

// settled watches until the services named are ready, one of them has failed, or ctx ends; it
// returns the last state that it saw.
func settled(ctx context.Context, c *api.Client, names []string) (fleet.Status, error) {
	st, err := c.Status(ctx)
	if err != nil {
		return st, err
	}
	for {
		if err := known(st, names); err != nil {
			return st, err
		}
		if failed := inState(st, names, fleet.ServiceFailed); len(failed) > 0 {
			return st, fmt.Errorf("%s failed", and(failed))
		}
		if healthy(st, names) {
			return st, nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return st, err
		}
		next, err := c.Status(ctx)
		if err != nil {
			return st, err
		}
		st = next
	}
}

// ask asks the fleet whether names are services of it. Where it cannot be asked, the verb says why.
func ask(ctx context.Context, c *api.Client, names ...string) error {
	if len(names) == 0 {
		return nil
	}
	st, err := c.Status(ctx)
	if err != nil {
		return nil
	}
	return known(st, names)
}

// known refuses a name that is no service of the fleet, once that has any.
func known(st fleet.Status, names []string) error {
	if len(st.Services) == 0 {
		return nil
	}
	var all []string
	for _, s := range st.Services {
		all = append(all, s.Name)
	}
	for _, name := range names {
		if !slices.Contains(all, name) {
			return fmt.Errorf("no service is called %s; this fleet has %s", name, strings.Join(all, ", "))
		}
	}
	return nil
}

// healthy reports whether those named are ready; where none is, whether all are that were asked to run.
// Where nothing was, an `up` has only begun.
func healthy(st fleet.Status, names []string) bool {
	ready := len(inState(st, names, fleet.ServiceReady, fleet.ServiceExternal))
	return len(unready(st, names)) == 0 && ready >= max(len(names), 1)
}

func unready(st fleet.Status, names []string) []string {
	return inState(st, names, fleet.ServiceWaiting, fleet.ServiceBuilding, fleet.ServiceStarting, fleet.ServiceUpdating, fleet.ServiceDegraded, fleet.ServiceFailed, fleet.ServiceStopping)
}

// inState returns the services in one of the states, of those named, or of all.
func inState(st fleet.Status, names []string, states ...fleet.ServiceState) []string {
	var in []string
	for _, s := range st.Services {
		if (len(names) == 0 || slices.Contains(names, s.Name)) && slices.Contains(states, s.State) {
			in = append(in, s.Name)
		}
	}
	return in
}

// showFailed prints, for each service that failed, why, and its last log lines.
func (a *app) showFailed(st fleet.Status) {
	s := a.styleOf(a.err)
	for i := range st.Services {
		v := &st.Services[i]
		if v.State != fleet.ServiceFailed {
			continue
		}
		fmt.Fprintf(a.err, "%s: %s\n", s.bold(v.Name), s.red(printable(failureOf(v))))
		for _, line := range lastLog(v) {
			fmt.Fprintf(a.err, "    %s\n", printable(line))
		}
	}
}

func lastLog(v *fleet.ServiceStatus) []string {
	if len(v.LastLog) > 0 {
		return v.LastLog
	}
	for _, i := range v.Instances {
		if len(i.LastLog) > 0 {
			return i.LastLog
		}
	}
	return nil
}
