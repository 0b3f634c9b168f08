package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
)

func (a *app) env() *cobra.Command {
	var as string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "env", Short: "Print shell exports: the fleet's addresses, for tools on this host", Args: within(0, 0),
		Example: "  eval \"$(shoal env)\"\n  shoal env --as orders",
	}
	cmd.Flags().StringVar(&as, "as", "", "the view that this `SERVICE` has, with its own variables")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a list of name, value and secret")
	_ = cmd.RegisterFlagCompletionFunc("as", a.completeServices)
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
		vars, err := c.Env(ctx, as)
		if err != nil {
			return err
		}
		if asJSON {
			return a.printJSON(vars)
		}
		for _, v := range vars {
			fmt.Fprintln(a.out, exportLine(v))
		}
		return nil
	})
	return cmd
}

// exportLine is a line that every POSIX shell evaluates to the value, whatever it holds.
func exportLine(v api.Var) string {
	if v.Secret {
		return "# " + v.Name + " is a secret; the service has it, this shell does not"
	}
	return "export " + v.Name + "='" + strings.ReplaceAll(v.Value, "'", `'\''`) + "'"
}
