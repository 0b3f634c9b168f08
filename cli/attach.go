package cli

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
)

func (a *app) attach() *cobra.Command {
	return &cobra.Command{
		Use: "attach SERVICE ADDRESS", Short: "Let a process that your IDE runs take a service's place, until Ctrl-C", Args: within(2, 2),
		Long:              "Let a process that your IDE runs take a service's place, until Ctrl-C.\nADDRESS is its port, or HOST:PORT.",
		Example:           "  shoal attach orders 8080",
		ValidArgsFunction: a.completeServices,
		RunE: a.asking(func(ctx context.Context, c *api.Client, args []string) error {
			address := args[1]
			if n, err := strconv.ParseUint(address, 10, 16); err == nil {
				address = net.JoinHostPort("127.0.0.1", strconv.FormatUint(n, 10))
			}
			if _, _, err := net.SplitHostPort(address); err != nil {
				return usagef("shoal attach: %q is neither a port nor HOST:PORT", args[1])
			}
			err := c.Attach(ctx, args[0], address, a.newPlain(a.out).progress)
			if ctx.Err() != nil {
				fmt.Fprintf(a.out, "%s is the fleet's own again\n", args[0])
				return nil // Ctrl-C is how this verb ends
			}
			return err
		}),
	}
}
