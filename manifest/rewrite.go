package manifest

import (
	"fmt"
	"strings"
)

// Replacement says where the repository of an entry is now, seen from the file's new place.
type Replacement struct {
	Repo     Repo
	Path     string // empty: the URL stays
	Manifest string // empty: the entry has none
}

// Rewrite returns the text of a fleet file with the entries of its repositories replaced, each by its place in
// the text: comments and everything else stay. An entry keeps its lines; where it has several the first of
// them gets all of it. The result is parsed again before it is returned.
func Rewrite(data []byte, all []Replacement) ([]byte, error) {
	lines := strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	for i := len(all) - 1; i >= 0; i-- {
		r := all[i]
		if same(r) {
			continue
		}
		if err := replace(lines, r); err != nil {
			return nil, err
		}
	}
	text := []byte(strings.Join(lines, "\n"))
	w, err := ParseWorkspace(WorkspaceFile, text)
	if err != nil {
		return nil, fmt.Errorf("rewrite the fleet file: %w", err)
	}
	for i, r := range all {
		if got := w.Repos[i]; got.Manifest != r.Manifest || r.Path != got.Path {
			return nil, byHandRepo(r.Repo)
		}
	}
	return text, nil
}

func byHandRepo(r Repo) error {
	return fmt.Errorf("line %d of the fleet file cannot be rewritten for you; write that entry on a line of its own", r.Line)
}

func same(r Replacement) bool {
	return r.Path == r.Repo.Path && r.Manifest == r.Repo.Manifest
}

// replace puts a repository's new words in the place of the old ones, in the lines of its entry.
func replace(lines []string, r Replacement) error {
	type change struct{ key, from, to string }
	changes := []change{{"manifest", r.Repo.Manifest, r.Manifest}}
	if r.Path != r.Repo.Path {
		from, key := r.Repo.Path, "path"
		if from == "" {
			from, key = r.Repo.URL, "url"
		}
		changes = append(changes, change{key, from, r.Path})
	}
	for _, c := range changes {
		if c.from == c.to {
			continue
		}
		at := find(lines, r.Repo.Line-1, c.from)
		if at < 0 {
			return byHandRepo(r.Repo)
		}
		line := lines[at]
		if c.key == "url" {
			line = strings.Replace(line, "url:", "path:", 1)
		}
		lines[at] = strings.Replace(line, c.from, c.to, 1)
	}
	return nil
}

// find looks for words from a line on, within the few lines that an entry may have.
func find(lines []string, from int, words string) int {
	for i := from; i < min(from+6, len(lines)); i++ {
		if strings.Contains(lines[i], words) {
			return i
		}
	}
	return -1
}
