package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) completion() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a script that completes verbs, flags and services", Args: within(1, 1),
		Example:   "  source <(shoal completion bash)\n  shoal completion fish > ~/.config/fish/completions/shoal.fish",
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.out)
			}
			return usagef("shoal completion: no script is known for %q; bash, zsh, fish and powershell are", args[0])
		},
	}
}

// completeTime bounds what a press of Tab may cost.
const completeTime = 500 * time.Millisecond

// completeServices offers the services of the running fleet.
func (a *app) completeServices(_ *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
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
	var names []cobra.Completion
	for _, s := range st.Services {
		names = append(names, cobra.CompletionWithDesc(s.Name, string(s.State)))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
