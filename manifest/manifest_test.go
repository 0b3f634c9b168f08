package manifest_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file, or rewrites the file under -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n--- got\n%s\n--- want\n%s", file, got, want)
	}
}

// Every file in testdata/good parses, to the values beside it.
func TestGood(t *testing.T) {
	for _, file := range glob(t, "testdata/good/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			m, err := manifest.Parse("orders/shoal.yaml", read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			goldenJSON(t, strings.TrimSuffix(file, ".yaml")+".json", m)
		})
	}
}

// Every file in testdata/good-work parses, to the values beside it.
func TestGoodWorkspace(t *testing.T) {
	for _, file := range glob(t, "testdata/good-work/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			w, err := manifest.ParseWorkspace("shoal.work", read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			goldenJSON(t, strings.TrimSuffix(file, ".yaml")+".json", w)
		})
	}
}

// Every file in testdata/bad is refused with the words beside it: all mistakes at once, each with its
// line and column, what is wrong, and what would be right.
func TestBad(t *testing.T) {
	for _, file := range glob(t, "testdata/bad/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := manifest.Parse("shoal.yaml", read(t, file))
			goldenError(t, file, err)
		})
	}
}

// As TestBad, for shoal.work.
func TestBadWorkspace(t *testing.T) {
	for _, file := range glob(t, "testdata/bad-work/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := manifest.ParseWorkspace("shoal.work", read(t, file))
			goldenError(t, file, err)
		})
	}
}

func goldenError(t *testing.T, file string, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("parsed without an error")
	}
	golden(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
}

func goldenJSON(t *testing.T, file string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, file, string(got)+"\n")
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no files (%v)", pattern, err)
	}
	return files
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
