package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this binary", Args: within(0, 0),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.out, "shoal %s %s/%s %s\n", a.config.Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
}
