package manifest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/shoalrun/shoal/manifest"
)

// Each archive in testdata/fleet is a fleet: its manifests, its shoal.work where it has one, and what
// Check, CheckExplicit and CheckBindings say of it.
func TestCheck(t *testing.T) {
	for _, file := range glob(t, "testdata/fleet/*.txtar") {
		t.Run(strings.TrimSuffix(file, ".txtar"), func(t *testing.T) {
			archive := txtar.Parse(read(t, file))
			var all []*manifest.Manifest
			var work *manifest.Workspace
			for _, f := range archive.Files {
				switch {
				case strings.HasSuffix(f.Name, "shoal.yaml"):
					all = append(all, parse(t, f.Name, f.Data))
				case f.Name == "shoal.work":
					work = parseWork(t, f.Data)
				}
			}
			first := say(all, work)
			slices.Reverse(all)
			if again := say(all, work); again != first {
				t.Errorf("the order of the manifests matters:\n%s\n%s", first, again)
			}
			golden(t, strings.TrimSuffix(file, ".txtar")+".txt", first)
		})
	}
}

func say(all []*manifest.Manifest, work *manifest.Workspace) string {
	var b strings.Builder
	warnings, err := manifest.Check(all)
	for _, w := range warnings {
		fmt.Fprintf(&b, "warning: %v\n", w)
	}
	tell := func(err error) {
		if err != nil {
			fmt.Fprintln(&b, err)
		}
	}
	tell(err)
	if err := manifest.CheckExplicit(all); err != nil {
		fmt.Fprintf(&b, "explicit mode:\n%v\n", err)
	}
	if work != nil {
		tell(work.CheckBindings(all))
	}
	return b.String()
}

func TestCallees(t *testing.T) {
	all := []*manifest.Manifest{
		parse(t, "a", []byte("service: a\nrun: x\ncalls: [b]\n")),
		parse(t, "b", []byte("service: b\nrun: x\ncalls: [a, c]\n")),
		parse(t, "c", []byte("service: c\nrun: x\n")),
		parse(t, "d", []byte("service: d\nrun: x\ncalls: [a]\n")),
	}
	if got := manifest.Callees(all, "a", "nobody"); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("a calls %v", got)
	}
}

func parse(t *testing.T, file string, data []byte) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse(file, data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func parseWork(t *testing.T, data []byte) *manifest.Workspace {
	t.Helper()
	w, err := manifest.ParseWorkspace("shoal.work", data)
	if err != nil {
		t.Fatal(err)
	}
	return w
}
