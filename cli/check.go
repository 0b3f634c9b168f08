package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/manifest"
	"github.com/shoalrun/shoal/workspace"
)

func (a *app) check() *cobra.Command {
	return &cobra.Command{
		Use: "check [FILE...]", Short: "Check every manifest and shoal.work, and show all errors at once",
		Long: "Check every manifest of the workspace and shoal.work itself, or only the manifests that are named,\nand show all errors at once as FILE:LINE:COLUMN: MESSAGE. Needs no running fleet.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			if _, ok, err := a.workspaceFile(); err == nil && !ok && len(args) == 0 && isFile(manifest.File) {
				args = []string{manifest.File} // a repository by itself
			}
			if len(args) > 0 {
				return a.report(checkFiles(args))
			}
			return a.report(a.checkWorkspace(ctx))
		},
	}
}

// report prints mistakes bare, so that editors can follow them, and counts them.
func (a *app) report(checked int, err error) error {
	var mistakes manifest.Errors
	if err != nil && !errors.As(err, &mistakes) {
		return err
	}
	if err != nil {
		fmt.Fprintln(a.err, err)
		return exitError{exitFailed}
	}
	fmt.Fprintf(a.out, "%s, no errors\n", plural(checked, "manifest"))
	return nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// checkFiles parses manifests one by one: what needs the others is not checked.
func checkFiles(files []string) (checked int, err error) {
	var all []error
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return 0, fmt.Errorf("the manifest cannot be read: %w", err)
		}
		if _, err := manifest.Parse(file, data); err != nil {
			all = append(all, err)
		}
	}
	return len(files), errors.Join(all...)
}

// checkWorkspace loads what shoal.work names; without one, the manifests that `up` would find here.
func (a *app) checkWorkspace(ctx context.Context) (checked int, err error) {
	services, err := a.loadWorkspace(ctx)
	return len(services), err
}

// loadWorkspace reads and checks every manifest. Warnings and clones are told on standard error.
func (a *app) loadWorkspace(ctx context.Context) ([]*workspace.Service, error) {
	w, err := a.openWorkspace()
	if err != nil {
		return nil, err
	}
	return w.Load(ctx, false)
}

func (a *app) openWorkspace() (*workspace.Workspace, error) {
	file, ok, err := a.workspaceFile()
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("no shoal.work is here or above: `shoal up` writes one, `shoal check FILE` checks a manifest alone")
	}
	show := a.newPlain(a.err)
	return workspace.Open(workspace.Config{File: file, Progress: func(p fleet.Progress) {
		if p.Phase == fleet.PhaseWarn || p.Phase == fleet.PhaseResolve {
			show.progress(p)
		}
	}})
}
