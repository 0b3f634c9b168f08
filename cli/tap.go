package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

func (a *app) tap() *cobra.Command {
	var r api.TapRequest
	var asJSON bool
	cmd := &cobra.Command{
		Use: "tap [SERVICE...]", Short: "Print calls and deliveries as they happen, a line each",
		ValidArgsFunction: a.completeServices,
	}
	filterFlags(cmd, &r)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print observations as JSON, one a line")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		others := []string{fleet.Events, fleet.Pubsub, fleet.Gateway, fleet.Operator} // call and are called, too
		if err := ask(ctx, c, slices.DeleteFunc(slices.Clone(args), func(name string) bool { return slices.Contains(others, name) })...); err != nil {
			return err
		}
		r.Services = args
		s := a.styleOf(a.out)
		return c.Tap(ctx, r, func(o fleet.Observation) {
			if o.Missed > 0 {
				fmt.Fprintf(a.err, "%d more were not shown: they came faster than they could be printed\n", o.Missed)
			}
			if asJSON {
				a.printJSONLine(o)
				return
			}
			fmt.Fprintln(a.out, tapLine(s, &o))
		})
	})
	return cmd
}

// tapLine is one exchange in a line: time, edge, what was asked, the outcome, how long, its id.
func tapLine(s style, o *fleet.Observation) string {
	parts := []string{s.faint(o.Time.Local().Format("15:04:05.000")), s.bold(o.Caller + " -> " + o.Callee)}
	if what := asked(o); what != "" {
		parts = append(parts, what)
	}
	if o.Route != "" && o.Route != fleet.DefaultRoute {
		parts = append(parts, "by "+o.Route)
	}
	parts = append(parts, outcome(s, o), latency(o.Duration), s.faint(o.RequestID))
	return strings.Join(parts, columnGap)
}

func asked(o *fleet.Observation) string {
	what := strings.TrimSpace(o.Method + " " + o.Path)
	switch {
	case o.Topic != "" && what != "":
		what = string(o.Kind) + " " + o.Topic + " " + what
	case o.Topic != "":
		what = string(o.Kind) + " " + o.Topic
	case o.Kind == fleet.KindMirror:
		what = "copy " + what
	case what == "":
		what = string(o.Kind)
	}
	return printable(what)
}

func outcome(s style, o *fleet.Observation) string {
	text := statusOf(o)
	text = strings.TrimPrefix(text, "status ")
	if text == "" {
		text = "done"
	}
	if tries := len(o.Attempts); tries > 1 {
		text += fmt.Sprintf(" (%d attempts)", tries)
	}
	if o.Fault != "" {
		text += " (fault " + printable(o.Fault) + ")"
	}
	if o.Compared != nil && o.Reason == "" {
		text += map[bool]string{true: " differs", false: " same"}[o.Compared.Differs()]
	}
	switch {
	case o.Reason != "":
		return s.red(strings.TrimPrefix(text+" "+o.Reason, "done "))
	case o.Failed():
		return s.red(text)
	case o.Learned != nil:
		return s.yellow(text + " learned")
	case o.Fault != "", o.Compared.Differs():
		return s.yellow(text)
	}
	return s.green(text)
}
