package workspace_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/manifest"
	"github.com/shoalrun/shoal/workspace"
)

func TestEnvFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one", "\ufeff# ours\r\nexport A = plain # why\r\nB='si#ngle $x \\n'\r\nC=\"dou\\nble \\\"q\\\" \\$x\" # c\nD=\n\n  E=a=b#c\nF=\"two\nmore lines\"\nG=last")
	write("two", "A=second\nORDERS_DATABASE_URL=postgres://x\n")
	s := workspace.NewSecrets([]manifest.SecretSource{{EnvFile: "one"}, {EnvFile: "two"}}, dir)
	refs := []string{"a", "b", "c", "d", "e", "f", "g", "orders/database-url"}
	got, err := s.Resolve(t.Context(), refs)
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"a": "plain", "b": `si#ngle $x \n`, "c": "dou\nble \"q\" $x", "d": "", "e": "a=b#c", "f": "two\nmore lines", "g": "last", "orders/database-url": "postgres://x",
	} {
		if got[ref] != want {
			t.Errorf("%s is %q, want %q", ref, got[ref], want)
		}
	}
	values := s.Values()
	for _, want := range []string{"postgres://x", "plain", "two\nmore lines", "more lines"} {
		if !slices.Contains(values, want) {
			t.Errorf("%q is not redacted", want)
		}
	}
	if slices.Contains(values, "") || slices.Contains(values, "two") {
		t.Errorf("too much is redacted: %q", values)
	}
	if files := s.Files(); len(files) != 2 || files[0] != filepath.Join(dir, "one") {
		t.Errorf("%v", files)
	}
}

// No error holds a value, and a missing secret names every source that was asked.
func TestSecretErrors(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands here are a Unix shell's")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"bad": "A=\"hunter2-unclosed\n", "words": "just hunter2-words\n", "good": "A=hunter2-good\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sources := []manifest.SecretSource{
		{EnvFile: "gone"}, {EnvFile: "bad"}, {EnvFile: "words"}, {EnvFile: "good"}, {Exec: []string{"no-such-program"}},
		{Exec: []string{"sh", "-c", "echo hunter2-printed; echo 'no vault for hunter2-printed' >&2; exit 3"}}, {Exec: []string{"true"}},
	}
	_, err := workspace.NewSecrets(sources, dir).Resolve(t.Context(), []string{"orders/key", "a"})
	wants(t, err, "no source has the secret orders/key", "gone: there is no such file", "bad: line 1, A: its quote is not closed", "words: line 1 is not NAME=value",
		"good: it has no ORDERS_KEY", "`no-such-program`", "exit status 3: no vault for •••", "`true`: it printed nothing", "ORDERS_KEY=...")
	if strings.Contains(err.Error(), "hunter2-printed\n") || strings.Contains(err.Error(), "hunter2-g") || strings.Contains(err.Error(), "hunter2-w") || strings.Contains(err.Error(), "hunter2-u") {
		t.Errorf("a value is in the error: %v", err)
	}
	_, err = workspace.NewSecrets(nil, dir).Resolve(t.Context(), []string{"a"})
	wants(t, err, "names no source", "secrets: [.env.shoal]", "A=...")
}

// A command gets the reference as its last argument, no shell, and its words as they are.
func TestExec(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands here are a Unix shell's")
	}
	w, err := manifest.ParseWorkspace("shoal.work", []byte(`{repos: [.], secrets: [{exec: "printf '<%s>' 'two words' $HOME"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	s := workspace.NewSecrets(w.Secrets, t.TempDir())
	got, err := s.Resolve(t.Context(), []string{"op://vault/item;ls", "x"})
	if err != nil || got["op://vault/item;ls"] != "<two words><$HOME><op://vault/item;ls>" || got["x"] != "<two words><$HOME><x>" {
		t.Errorf("%v %v", got, err)
	}
}
