package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
)

func (a *app) restart() *cobra.Command {
	return &cobra.Command{
		Use: "restart [SERVICE...]", Short: "Replace the instances of services, without failing a call",
		Long:              "Replace the instances of services, without failing a call: a new one starts beside each old one,\nwhich drains once the new one is healthy. None named: all services.",
		ValidArgsFunction: a.completeServices,
		RunE: a.asking(func(ctx context.Context, c *api.Client, args []string) error {
			return c.Restart(ctx, args, a.newPlain(a.out).progress)
		}),
	}
}
