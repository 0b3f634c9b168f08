package workspace

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// keepReleases is how many releases of a service stay besides those in use, the last used first: enough to
// go back and forth between branches without building.
const keepReleases = 3

// Collect removes old releases of the services in inUse, which maps each to the ids that run, and build trees
// whose clone is gone. The cache is shared by the workspaces of a user: each notes what it uses, and nothing
// that any of them noted is removed.
func (w *Workspace) Collect(inUse map[string][]string) error {
	var failed []error
	for service, ids := range inUse {
		failed = append(failed, w.collect(service, ids), w.collectTrees(service))
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("remove old releases: %w", err)
	}
	return nil
}

// user is a workspace's note of the releases that it uses.
type user struct {
	Data string   `json:"data"` // its data folder; a note whose data folder is gone is void
	IDs  []string `json:"ids"`
}

func (w *Workspace) collect(service string, ids []string) error {
	turn := w.turn("build " + service)
	turn.Lock()
	defer turn.Unlock()
	dir := w.releases(service)
	used, err := w.users(dir, ids)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	releases, err := byAge(dir)
	if err != nil {
		return err
	}
	var failed []error
	kept := 0
	for _, r := range releases {
		switch {
		case strings.HasPrefix(r.Name(), ".new-"):
			if time.Since(r.ModTime()) > 24*time.Hour { // of a process that died
				failed = append(failed, removeAll(filepath.Join(dir, r.Name())))
			}
		case slices.Contains(used, r.Name()):
		case kept < keepReleases:
			kept++
		default:
			failed = append(failed, discard(filepath.Join(dir, r.Name())))
		}
	}
	return errors.Join(failed...)
}

// discard renames a release before it removes it: half a release must not look like one.
func discard(dir string) error {
	gone := filepath.Join(filepath.Dir(dir), ".new-gone-"+filepath.Base(dir))
	if err := os.Rename(dir, gone); err != nil {
		return err
	}
	return removeAll(gone)
}

// users notes what this workspace uses, and returns what any workspace uses.
func (w *Workspace) users(dir string, ids []string) ([]string, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	if err := w.note(dir, ids); err != nil {
		return nil, err
	}
	notes := filepath.Join(dir, ".users")
	entries, err := os.ReadDir(notes)
	used := slices.Clone(ids)
	for _, e := range entries {
		used = append(used, noted(filepath.Join(notes, e.Name()))...)
	}
	return used, err
}

// note writes down what this workspace uses of a service's releases.
func (w *Workspace) note(dir string, ids []string) error {
	file := w.noteFile(dir)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	own, err := json.Marshal(user{w.config.Data, ids})
	if err != nil {
		return err
	}
	return writeFile(file, own)
}

func (w *Workspace) noteFile(dir string) string {
	sum := sha256.Sum256([]byte(w.config.Data))
	return filepath.Join(dir, ".users", hex.EncodeToString(sum[:6]))
}

// noteOne adds a release that is about to run to what was noted, until the next Collect knows better.
func (w *Workspace) noteOne(dir, id string) error {
	var u user
	if data, err := os.ReadFile(w.noteFile(dir)); err == nil {
		_ = json.Unmarshal(data, &u)
	}
	if slices.Contains(u.IDs, id) {
		return nil
	}
	return w.note(dir, append(u.IDs, id))
}

func noted(file string) []string {
	var u user
	data, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(data, &u) != nil {
		return nil
	}
	if _, err := os.Stat(u.Data); errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(file)
		return nil
	}
	return u.IDs
}

// byAge lists the folders in dir, the last used first.
func byAge(dir string) ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.IsDir() && e.Name() != ".users" {
			all = append(all, info)
		}
	}
	slices.SortFunc(all, func(a, b fs.FileInfo) int {
		return cmp.Or(b.ModTime().Compare(a.ModTime()), strings.Compare(a.Name(), b.Name()))
	})
	return all, nil
}

func (w *Workspace) collectTrees(service string) error {
	files, err := filepath.Glob(filepath.Join(w.config.Cache, "build", service, "*.json"))
	if err != nil {
		return err
	}
	var failed []error
	for _, file := range files {
		var i index
		data, err := os.ReadFile(file)
		if err != nil || json.Unmarshal(data, &i) != nil || i.Source == "" {
			continue
		}
		if _, err := os.Stat(i.Source); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		failed = append(failed, removeAll(strings.TrimSuffix(file, ".json")), os.Remove(file))
	}
	return errors.Join(failed...)
}
