package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/manifest"
	"github.com/shoalrun/shoal/workspace"
)

func (a *app) learn() *cobra.Command {
	var write bool
	cmd := &cobra.Command{
		Use: "learn", Short: "Show the undeclared calls that `up --learn` let through, or write them into the manifests", Args: within(0, 0),
	}
	cmd.Flags().BoolVar(&write, "write", false, "add them to the manifests, comments and order kept")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
		learned, err := c.Learned(ctx)
		if err != nil {
			return err
		}
		if len(learned) == 0 {
			fmt.Fprintln(a.out, "nothing undeclared was seen; start with `shoal up --learn`, use the services, and ask again")
			return nil
		}
		if write {
			return a.writeLearned(ctx, learned)
		}
		fmt.Fprint(a.out, learnedText(learned))
		fmt.Fprintln(a.out, "`shoal learn --write` adds this to the manifests")
		return nil
	})
	return cmd
}

// learnedText groups what was learned as the manifests would have it.
func learnedText(learned []fleet.Learned) string {
	learned = slices.Clone(learned)
	slices.SortFunc(learned, func(a, b fleet.Learned) int {
		return strings.Compare(a.Service+"\x00"+a.Section+"\x00"+a.Entry, b.Service+"\x00"+b.Section+"\x00"+b.Entry)
	})
	var b strings.Builder
	var last fleet.Learned
	for _, l := range learned {
		if l.Service != last.Service {
			fmt.Fprintf(&b, "%s:\n", l.Service)
			last.Section = ""
		}
		if l.Section != last.Section {
			fmt.Fprintf(&b, "  %s:\n", l.Section)
		}
		entry := "- " + l.Entry
		if l.Section == "calls" {
			entry = l.Entry + ": {}"
		}
		fmt.Fprintf(&b, "    %s\n", entry)
		last = l
	}
	return b.String()
}

// writeLearned edits the manifest of each service that learned something. One that cannot be edited
// does not keep the others from it.
func (a *app) writeLearned(ctx context.Context, learned []fleet.Learned) error {
	services, err := a.loadWorkspace(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, s := range services {
		name := s.Manifest.Service
		if !slices.ContainsFunc(learned, func(l fleet.Learned) bool { return l.Service == name }) {
			continue
		}
		if err := a.writeInto(s, learned); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(failed...)
}

func (a *app) writeInto(s *workspace.Service, learned []fleet.Learned) error {
	if s.ManifestPath == "" {
		return fmt.Errorf("its manifest comes from %s and cannot be edited here: change it in a clone", s.Source)
	}
	before, err := os.ReadFile(s.ManifestPath)
	if err != nil {
		return err
	}
	after, err := manifest.Add(before, learned)
	if err != nil {
		return err
	}
	if bytes.Equal(before, after) {
		return nil
	}
	info, err := os.Stat(s.ManifestPath)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.ManifestPath, after, info.Mode().Perm()); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "wrote %s\n", s.ManifestPath)
	return nil
}
