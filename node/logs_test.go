package node

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shoalrun/shoal/api"
)

func TestLogsThroughRotation(t *testing.T) {
	n := &node{}
	n.Paths.Logs = t.TempDir()
	path := filepath.Join(n.Paths.Logs, "web", "web-1.log")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = f.WriteString(text)
		_ = f.Close()
	}
	write(path+".1", "one\ntwo\n")
	write(path, "three\nfour\n")

	var got []string
	collect := func(l api.LogLine) error { got = append(got, l.Service+" "+l.Instance+" "+l.Text); return nil }
	if err := n.logs(t.Context(), api.LogsRequest{Tail: 3}, collect); err != nil {
		t.Fatal(err)
	}
	if want := []string{"web web-1 two", "web web-1 three", "web web-1 four"}; !slices.Equal(got, want) {
		t.Errorf("the last three lines: %q; want %q", got, want)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got = nil
	lines := 0
	err := n.logs(ctx, api.LogsRequest{Services: []string{"web"}, Follow: true, Tail: 1}, func(l api.LogLine) error {
		got = append(got, l.Text)
		switch lines++; lines {
		case 1:
			write(path, "half")
			write(path, " a line\n")
		case 2: // rotate between two lines
			if err := os.Rename(path, path+".1"); err != nil {
				t.Error(err)
			}
			write(path+".1", "last of the old\n")
			write(path, "first of the new\n")
		case 4:
			cancel()
		}
		return nil
	})
	if want := []string{"four", "half a line", "last of the old", "first of the new"}; !slices.Equal(got, want) {
		t.Errorf("followed (%v): %q; want %q", err, got, want)
	}
}

func TestLastLines(t *testing.T) {
	for _, c := range []struct {
		text  string
		lines int
		want  string
	}{{"a\nb\nc\n", 2, "b\nc\n"}, {"a\nb\nc", 2, "b\nc"}, {"a\n", 5, "a\n"}, {"", 3, ""}, {"\n\n", 1, "\n"}} {
		if got := lastLines([]byte(c.text), c.lines); string(got) != c.want {
			t.Errorf("lastLines(%q, %d) = %q; want %q", c.text, c.lines, got, c.want)
		}
	}
}
