package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/manifest"
)

func (a *app) schema() *cobra.Command {
	kinds := manifest.Schemas()
	return &cobra.Command{
		Use: "schema [" + strings.Join(kinds, "|") + "]", Short: "Print the JSON Schema of shoal.yaml or shoal.work, for editors", Args: within(0, 1),
		Example:   "  shoal schema manifest > shoal.schema.json",
		ValidArgs: kinds,
		RunE: func(_ *cobra.Command, args []string) error {
			kind := kinds[0]
			if len(args) > 0 {
				kind = args[0]
			}
			b, err := manifest.Schema(kind)
			if err != nil {
				return usagef("shoal schema: %v", err)
			}
			_, err = a.out.Write(append(b[:len(b):len(b)], '\n'))
			return err
		},
	}
}
