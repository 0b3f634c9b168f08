package manifest

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var rewrite = flag.Bool("reference", false, "rewrite the tables of docs/manifest.md")

const reference = "../docs/manifest.md"

// The tables of the reference are made of the table of keys: this test compares them, and rewrites them
// under -reference.
func TestReference(t *testing.T) {
	data, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	got := string(data)
	for name, keys := range map[string][]key{"manifest": manifestKeys(), "workspace": workspaceKeys()} {
		if got, err = replaceTable(got, name, table(keys)); err != nil {
			t.Fatal(err)
		}
	}
	if *rewrite {
		if err := os.WriteFile(reference, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(data) {
		t.Errorf("%s differs from the table of keys; run `go test ./manifest -run TestReference -reference`", reference)
	}
}

// Every whole example of the reference is what it says it is.
func TestReferenceExamples(t *testing.T) {
	data, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(data), "```yaml\n")
	if len(blocks) < 3 {
		t.Fatal("the reference has no examples")
	}
	for _, b := range blocks[1:] {
		text, _, _ := strings.Cut(b, "```")
		err := error(nil)
		if strings.Contains(text, "repos:") {
			_, err = ParseWorkspace(WorkspaceFile, []byte(text))
		} else {
			_, err = Parse(File, []byte(text))
		}
		if err != nil {
			t.Errorf("%v\nin\n%s", err, text)
		}
	}
}

// The example of every key, alone, fits its shape.
func TestKeyExamples(t *testing.T) {
	for _, keys := range [][]key{manifestKeys(), workspaceKeys()} {
		everyKey(keys, "", func(path string, k key) {
			p := &parse{}
			n := p.tree([]byte(k.example))
			if n != nil {
				p.fit(&k.shape, n, path)
			}
			if err := p.errors.sorted(); err != nil || n == nil {
				t.Errorf("the example of %s, %q: %v", path, k.example, err)
			}
			if k.doc == "" || !k.required && k.fallback == "" && k.name != "owner" {
				t.Errorf("%s lacks a sentence, or says not what holds without it", path)
			}
		})
	}
}

func everyKey(keys []key, path string, visit func(path string, k key)) {
	for _, k := range keys {
		own := dotted(path, k.name)
		visit(own, k)
		below, suffix := inside(&k.shape)
		everyKey(below, own+suffix, visit)
	}
}

// inside returns the keys within the values of a shape, and how a path to them is written.
func inside(s *shape) ([]key, string) {
	switch {
	case s.object != nil:
		return s.object, ""
	case s.entries != nil:
		below, suffix := inside(&s.entries.value)
		return below, ".*" + suffix
	case s.list != nil:
		below, suffix := inside(s.list)
		return below, "[]" + suffix
	}
	return nil, ""
}

func table(keys []key) string {
	var b strings.Builder
	b.WriteString("| key | takes | without it | example |\n|---|---|---|---|\n")
	everyKey(keys, "", func(path string, k key) {
		without := k.fallback
		if k.required {
			without = "**required**"
		}
		fmt.Fprintf(&b, "| `%s` | %s<br>%s | %s | `%s` |\n", path, cell(k.shape.want()), cell(k.doc), cell(without), cell(k.example))
	})
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func replaceTable(text, name, table string) (string, error) {
	begin, end := "<!-- keys of "+name+" -->\n", "<!-- end of "+name+" -->"
	before, rest, ok := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", fmt.Errorf("%s has no marks %q and %q", reference, begin, end)
	}
	return before + begin + table + end + after, nil
}
