package workspace

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/shoalrun/shoal/manifest"
)

const lockHead = "# Commits of the repositories in " + manifest.WorkspaceFile + ": URL, pin, commit. Written by Shoal; `shoal up --update` moves them.\n"

// lock is shoal.lock: the commit that each URL and pin meant when it was first seen.
type lock struct {
	file string

	mu      sync.Mutex
	commits map[string]string // "URL PIN" to commit; a pin that is empty is `-`
	changed bool
}

func (w *Workspace) lockFile() string { return filepath.Join(w.dir, "shoal.lock") }

var commitID = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)

func readLock(file string) (*lock, error) {
	l := &lock{file: file, commits: map[string]string{}}
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the lock: %w", err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) != 3 || !commitID.MatchString(words[2]) {
			return nil, fmt.Errorf("%s:%d: this is not URL, pin and commit; restore the file, or remove it to lock what the pins mean now", file, n)
		}
		l.commits[words[0]+" "+words[1]] = words[2]
	}
	return l, lines.Err()
}

// lockKey names an entry. URLs are kept without credentials.
func lockKey(r manifest.Repo) string {
	pin := r.Pin
	if pin == "" {
		pin = "-"
	}
	return Redact(r.URL) + " " + pin
}

func (l *lock) get(r manifest.Repo) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commits[lockKey(r)]
}

func (l *lock) set(r manifest.Repo, commit string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = l.changed || l.commits[lockKey(r)] != commit
	l.commits[lockKey(r)] = commit
}

// write writes the lock whole where it changed, without the entries of repositories that are gone.
func (l *lock) write(repos []manifest.Repo) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.changed {
		return nil
	}
	live := map[string]bool{}
	for _, r := range repos {
		live[lockKey(r)] = true
	}
	text := lockHead
	for _, k := range slices.Sorted(maps.Keys(l.commits)) {
		if live[k] {
			text += k + " " + l.commits[k] + "\n"
		}
	}
	return writeFile(l.file, []byte(text))
}

// writeFile writes a file whole: a reader sees the old one or the new one.
func writeFile(file string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(file), err)
	}
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(0o644), temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", filepath.Base(file), err), os.Remove(temp.Name()))
	}
	return nil
}
