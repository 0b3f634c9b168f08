package cli

import (
	"context"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

func (a *app) fault() *cobra.Command {
	cmd := &cobra.Command{
		Use: "fault", Short: "Inject failures into the calls of one edge, for a time", Args: within(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.faultAdd(), a.faultList(), a.faultRemove())
	return cmd
}

// faultFor is how long a fault lasts where nobody says.
const faultFor = 5 * time.Minute

func (a *app) faultAdd() *cobra.Command {
	var f fleet.Fault
	var delay, last time.Duration
	var grpc string
	cmd := &cobra.Command{
		Use: "add FROM→TO", Short: "Put a fault in force; it ends by itself", Args: within(1, 2),
		Example:           "  shoal fault add orders→payments --delay 2s --abort 503 --percent 10 --for 5m\n  shoal fault add 'orders->payments' --grpc UNAVAILABLE --path '/shop.Payments/*'",
		ValidArgsFunction: a.completeServices,
	}
	flags := cmd.Flags()
	flags.DurationVar(&delay, "delay", 0, "let each call wait for `TIME`")
	flags.IntVar(&f.Abort, "abort", 0, "answer with this HTTP `STATUS` (400 to 599), and a gRPC call with the status that it means")
	flags.StringVar(&grpc, "grpc", "", "answer a gRPC call with this `STATUS`, by its name or number")
	flags.Float64Var(&f.Percent, "percent", 100, "how many of the calls")
	flags.DurationVar(&last, "for", faultFor, "`TIME` after which it ends; 24h at most")
	flags.StringVar(&f.Path, "path", "", "only this `PATH`; a prefix where it ends in *")
	flags.StringVar(&f.Method, "method", "", "only this `METHOD`")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) (err error) {
		if f.From, f.To, err = parseEdge(args); err != nil {
			return err
		}
		if f.GRPC, err = parseGRPCStatus(grpc); err != nil {
			return err
		}
		f.Delay, f.Until, f.Method, f.By = fleet.Duration(delay), a.now().Add(last).UTC(), strings.ToUpper(f.Method), whoAmI()
		f, err = c.AddFault(ctx, f)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s: %s → %s, %s, until %s; `shoal fault rm %s` ends it before\n", f.ID, f.From, f.To, &f, f.Until.Local().Format("15:04:05"), f.ID)
		return nil
	})
	return cmd
}

// whoAmI names the operator for the history.
func whoAmI() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

// parseEdge reads FROM→TO, FROM->TO, or two arguments.
func parseEdge(args []string) (from, to string, err error) {
	if len(args) == 2 {
		return args[0], args[1], nil
	}
	for _, arrow := range []string{"→", "->"} {
		from, to, ok := strings.Cut(args[0], arrow)
		if from, to = strings.TrimSpace(from), strings.TrimSpace(to); ok && from != "" && to != "" {
			return from, to, nil
		}
	}
	if strings.HasSuffix(args[0], "-") {
		return "", "", usagef("%q is no edge: a shell takes `>` for itself; quote it ('orders->payments'), write orders→payments, or two words", args[0])
	}
	return "", "", usagef("%q is no edge: write who calls and who is called, such as orders→payments", args[0])
}

// grpcStatuses are the names of gRPC's status codes, by number.
func grpcStatuses() []string {
	return []string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}
}

func parseGRPCStatus(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	if i := slices.Index(grpcStatuses(), strings.ToUpper(s)); i > 0 {
		return i, nil
	}
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < len(grpcStatuses()) {
		return n, nil
	}
	return 0, usagef("%q is no failure of gRPC; it takes %s", s, strings.Join(grpcStatuses()[1:], ", "))
}

func (a *app) faultList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Show the faults that are active", Args: within(0, 0),
		RunE: a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
			st, err := c.Status(ctx)
			if err != nil {
				return err
			}
			if len(st.Faults) == 0 {
				fmt.Fprintln(a.out, "no fault is active")
				return nil
			}
			t := &table{}
			t.add("FAULT", "FROM", "TO", "WHAT", "ENDS IN", "BY")
			for _, f := range st.Faults {
				t.add(f.ID, f.From, f.To, printable(f.String()), age(f.Until.Sub(a.now())), printable(f.By))
			}
			_, err = fmt.Fprintln(a.out, strings.Join(t.lines(), "\n"))
			return err
		}),
	}
}

func (a *app) faultRemove() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "rm ID...", Short: "End faults", Args: within(0, -1), ValidArgsFunction: a.completeFaults,
	}
	cmd.Flags().BoolVar(&all, "all", false, "end all of them")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		if all != (len(args) == 0) {
			return usagef("shoal fault rm: name the faults, or write --all; `shoal fault list` shows them")
		}
		gone, err := c.RemoveFaults(ctx, args, whoAmI())
		if err != nil {
			return err
		}
		if len(gone) == 0 {
			fmt.Fprintln(a.out, "no fault was active")
			return nil
		}
		fmt.Fprintf(a.out, "ended %s\n", and(gone))
		return nil
	})
	return cmd
}

// completeFaults offers the faults that are active.
func (a *app) completeFaults(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	c, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, stop := context.WithTimeout(context.Background(), completeTime)
	defer stop()
	st, err := c.Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []cobra.Completion
	for _, f := range st.Faults {
		ids = append(ids, cobra.CompletionWithDesc(f.ID, f.From+" → "+f.To+", "+f.String()))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// faultLine says in a line of `status` that what fails may be meant to.
func (a *app) faultLine(s style, faults []fleet.Fault) string {
	var all []string
	for _, f := range faults {
		all = append(all, fmt.Sprintf("%s %s → %s (%s, %s left)", f.ID, f.From, f.To, printable(f.String()), age(f.Until.Sub(a.now()))))
	}
	return s.yellow(fmt.Sprintf("%s injected: %s; `shoal fault rm --all` ends that", plural(len(faults), "fault"), strings.Join(all, ", ")))
}
