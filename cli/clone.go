package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/workspace"
)

func (a *app) clone() *cobra.Command {
	return &cobra.Command{
		Use: "clone FLEET-FILE [DIR]", Short: "Clone the repositories of a committed list and write a shoal.work for them", Args: within(1, 2),
		Long: "Clone the repositories of a committed list, a file in the format of shoal.work, into DIR (default: here),\nand write a shoal.work for them.",
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 1 {
				dir = args[1]
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			file, err := workspace.Clone(ctx, args[0], dir, a.newPlain(a.err).progress)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "wrote %s; run `shoal up` there\n", file)
			return nil
		},
	}
}
