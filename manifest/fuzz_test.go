package manifest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/manifest"
)

// Whatever the bytes, both parsers return a value or errors with places, and what was learned can be
// added to all that parses in block style, or is refused with words.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"good", "good-work", "bad", "bad-work"} {
		files, _ := filepath.Glob("testdata/" + pattern + "/*.yaml")
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := manifest.ParseWorkspace("shoal.work", data)
		checkErrors(t, err)
		m, err := manifest.Parse("shoal.yaml", data)
		checkErrors(t, err)
		if err != nil {
			return
		}
		learned := []fleet.Learned{{Service: m.Service, Section: "calls", Entry: "zebra"}, {Service: m.Service, Section: "egress", Entry: "*.zebra.com:443"},
			{Service: m.Service, Section: "publishes", Entry: "zebra.seen"}}
		added, err := manifest.Add(data, learned)
		if err != nil {
			return
		}
		if _, err := manifest.Parse("shoal.yaml", added); err != nil {
			t.Fatalf("what Add returned does not parse: %v\n%s", err, added)
		}
	})
}

func checkErrors(t *testing.T, err error) {
	if err == nil {
		return
	}
	var all manifest.Errors
	if !errors.As(err, &all) || len(all) == 0 {
		t.Fatalf("not Errors: %v", err)
	}
	for _, e := range all {
		if e.Line < 1 || e.Column < 1 || e.Message == "" || strings.Contains(e.Error(), "\n") {
			t.Fatalf("an error without a place, without words, or of two lines: %q", e)
		}
	}
}

// Input that is made to be expensive ends soon, with an error.
func TestHuge(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		prev := "*" + string(c-1)
		bomb += string(c) + ": &" + string(c) + " [" + strings.Repeat(prev+",", 9) + prev + "]\n"
	}
	for name, text := range map[string]string{
		"brackets":   strings.Repeat("[", 60_000),
		"braces":     strings.Repeat("{a: ", 15_000),
		"entries":    strings.Repeat("- ", 30_000),
		"questions":  strings.Repeat("? ", 30_000),
		"anchors":    strings.Repeat("&a ", 20_000),
		"tags":       strings.Repeat("!a ", 20_000),
		"indents":    staircase(300),
		"list steps": strings.Replace(staircase(300), "a:", "-", -1),
		"aliases":    bomb,
		"keys":       strings.Repeat("k: v\n", 5_000),
		"long":       "run: " + strings.Repeat("x", 1<<20),
		"colons":     strings.Repeat("a: ", 8_000),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			if _, err := manifest.Parse("shoal.yaml", []byte(text)); err == nil {
				t.Error("parsed")
			}
			t.Logf("%s", time.Since(start))
		})
	}
}

func staircase(steps int) string {
	var b strings.Builder
	for i := range steps {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}
