package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
)

func (a *app) debug() *cobra.Command {
	var off bool
	cmd := &cobra.Command{
		Use: "debug SERVICE", Short: "Suspend a service's health checks, deadlines and restarts, for a debugger", Args: within(1, 1),
		ValidArgsFunction: a.completeServices,
	}
	cmd.Flags().BoolVar(&off, "off", false, "put them in force again")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		if err := c.Debug(ctx, args[0], !off); err != nil {
			return err
		}
		if off {
			fmt.Fprintf(a.out, "%s is watched again\n", args[0])
			return nil
		}
		fmt.Fprintf(a.out, "%s may stop at a breakpoint: health, deadlines and restarts are suspended until `shoal debug %s --off`\n", args[0], args[0])
		return nil
	})
	return cmd
}
