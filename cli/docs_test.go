package cli

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The page has a section for every verb and for nothing else, and names each verb's flags.
func TestThePageFollowsTheCommandTree(t *testing.T) {
	page, err := os.ReadFile("../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := make(map[string]string)
	for _, part := range strings.Split(string(page), "\n## ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		sections[name], _, _ = strings.Cut(text, "\n# ")
	}
	for _, verb := range newApp(Config{Args: []string{}}).root().Commands() {
		if verb.Hidden {
			continue
		}
		text, ok := sections[verb.Name()]
		if !ok {
			t.Errorf("docs/cli.md has no section %q", verb.Name())
		}
		delete(sections, verb.Name())
		describes(t, verb, text)
	}
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		t.Errorf("docs/cli.md describes %q, which is no verb", name)
	}
}

func describes(t *testing.T, verb *cobra.Command, text string) {
	if use := "`shoal " + strings.TrimSuffix(verb.Use, " [flags]"); !strings.Contains(text, use) {
		t.Errorf("docs/cli.md, %s: does not say %s`", verb.Name(), use)
	}
	verb.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" && !f.Hidden && !strings.Contains(text, "--"+f.Name) {
			t.Errorf("docs/cli.md, %s: does not name --%s", verb.Name(), f.Name)
		}
		if f.Shorthand != "" && f.Name != "help" && !strings.Contains(text, "`-"+f.Shorthand+"`") {
			t.Errorf("docs/cli.md, %s: does not name -%s", verb.Name(), f.Shorthand)
		}
	})
}

// Every verb that help shows says in a line what it does.
func TestVerbsSayWhatTheyDo(t *testing.T) {
	for _, verb := range newApp(Config{Args: []string{}}).root().Commands() {
		if !verb.Hidden && (verb.Short == "" || strings.HasSuffix(verb.Short, ".") || len(verb.Short) > 100) {
			t.Errorf("%s: %q", verb.Name(), verb.Short)
		}
	}
}
