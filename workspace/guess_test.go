package workspace_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/shoalrun/shoal/workspace"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each archive in testdata/guess is a repository, named after its file; its comment is what is guessed.
func TestGuess(t *testing.T) {
	files, err := filepath.Glob("testdata/guess/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), name)
			for _, f := range archive.Files {
				to := filepath.Join(dir, f.Name)
				if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(to, f.Data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			g, err := workspace.Init(dir)
			if err != nil {
				t.Fatal(err)
			}
			written, _ := os.ReadFile(filepath.Join(dir, "shoal.yaml"))
			if string(written) != string(g.Text) || g.File != filepath.Join(dir, "shoal.yaml") {
				t.Errorf("wrote %q to %s", written, g.File)
			}
			got := fmt.Sprintf("%s\n%s\n", strings.Join(g.Sentences, "\n"), g.Text)
			if *update {
				archive.Comment = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if string(archive.Comment) != got {
				t.Errorf("guessed\n%s\nwant\n%s", got, archive.Comment)
			}
			_, err = workspace.Init(dir)
			wants(t, err, "never overwritten")
		})
	}
}

// What git ignores is not looked at.
func TestGuessIgnores(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	p := newPlace(t)
	p.repo("app", "main.py", "x", ".gitignore", "generated\n", "generated/x.py", `requests.get("http://inventory:8080/")`)
	g, err := workspace.Look(filepath.Join(p.dir, "app"))
	if err != nil || strings.Contains(string(g.Text), "inventory") {
		t.Errorf("%v %s", err, g.Text)
	}
}

func TestGuessNowhere(t *testing.T) {
	_, err := workspace.Look(filepath.Join(t.TempDir(), "gone"))
	wants(t, err, "is no folder")
}
