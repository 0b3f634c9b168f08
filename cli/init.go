package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/workspace"
)

func (a *app) init() *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use: "init [DIR]", Short: "Write a shoal.yaml by looking at a repository, and say what was guessed", Args: within(0, 1),
	}
	cmd.Flags().BoolVar(&show, "print", false, "print the manifest instead of writing it")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		dir := "."
		if len(args) > 0 {
			dir = args[0]
		}
		look := workspace.Init
		if show {
			look = workspace.Look
		}
		guess, err := look(dir)
		if err != nil {
			return err
		}
		for _, sentence := range guess.Sentences {
			fmt.Fprintln(a.err, sentence)
		}
		if show {
			_, err := a.out.Write(guess.Text)
			return err
		}
		fmt.Fprintf(a.out, "wrote %s; look it over, then run `shoal up`\n", guess.File)
		return nil
	}
	return cmd
}
