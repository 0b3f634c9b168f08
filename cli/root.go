package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// The groups of verbs in `shoal --help`.
const (
	groupRun   = "run"
	groupLook  = "look"
	groupAct   = "act"
	groupRepos = "repos"
	groupHere  = "here"
)

// root is the command tree. docs/cli.md has a section per verb of it.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "shoal",
		Short:         "Everything between your services, in one binary",
		Long:          "Shoal runs services from separate repositories as one fleet: sidecars, gateway, events, deployment.\nStart with `shoal init` in each repository, then `shoal up`.",
		SilenceErrors: true, SilenceUsage: true, SuggestionsMinimumDistance: 2,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.Args = func(cmd *cobra.Command, args []string) error { return noVerb(cmd, args) }
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%s: %v; see `%s --help`", cmd.CommandPath(), err, cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.workspace, "workspace", "", "the workspace `FILE` (default: shoal.work here or above)")
	flags.StringVar(&a.data, "data", "", "the data `DIR` (default: .shoal beside shoal.work)")
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run a fleet:"},
		&cobra.Group{ID: groupLook, Title: "Look at it:"},
		&cobra.Group{ID: groupAct, Title: "Act in it:"},
		&cobra.Group{ID: groupRepos, Title: "Repositories and manifests:"},
		&cobra.Group{ID: groupHere, Title: "This machine:"},
	)
	root.SetHelpCommand(&cobra.Command{Use: "help", Hidden: true, RunE: func(cmd *cobra.Command, args []string) error {
		return help(cmd.Root(), args)
	}})
	for group, verbs := range a.verbs() {
		for _, verb := range verbs {
			verb.GroupID = group
			root.AddCommand(verb)
		}
	}
	root.AddCommand(a.hub())
	return root
}

func (a *app) verbs() map[string][]*cobra.Command {
	return map[string][]*cobra.Command{
		groupRun:   {a.up(), a.down(), a.restart(), a.upgrade(), a.wait(), a.test(), a.node()},
		groupLook:  {a.status(), a.logs(), a.why(), a.tap(), a.topics(), a.subscriptions(), a.tail(), a.graph(), a.routes(), a.env(), a.nodes()},
		groupAct:   {a.call(), a.publish(), a.scheduled(), a.cron(), a.replay(), a.dlq(), a.broker(), a.exec(), a.forward(), a.attach(), a.debug(), a.fault(), a.learn()},
		groupRepos: {a.init(), a.clone(), a.check(), a.schema()},
		groupHere:  {a.doctor(), a.version(), a.completion()},
	}
}

// noVerb refuses what is not a verb and names the nearest one.
func noVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	near := cmd.SuggestionsFor(args[0])
	if len(near) == 0 {
		return usagef("there is no verb `%s`; `shoal --help` lists them", args[0])
	}
	return usagef("there is no verb `%s`; did you mean `shoal %s`?", args[0], strings.Join(near, "` or `shoal "))
}

func help(root *cobra.Command, args []string) error {
	cmd, _, err := root.Find(args)
	if err != nil || cmd == root && len(args) > 0 {
		return noVerb(root, args)
	}
	return cmd.Help()
}
