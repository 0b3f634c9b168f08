package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/manifest"
)

// Clone writes a shoal.work into dir from a committed fleet file. Repositories without a pin are cloned beside
// it, to be edited; those with a pin stay URLs. Everything else of the file, comments too, is kept; its paths
// are made relative to dir. An existing shoal.work is never overwritten; an existing clone of the same origin
// is used as it is.
func Clone(ctx context.Context, fleetFile, dir string, progress func(fleet.Progress)) (file string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", fmt.Errorf("clone a fleet: %w", err)
	}
	data, err := os.ReadFile(fleetFile)
	if err != nil {
		return "", fmt.Errorf("read the fleet file: %w", err)
	}
	settings, err := manifest.ParseWorkspace(fleetFile, data)
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, manifest.WorkspaceFile)
	if isFile(file) {
		return "", fmt.Errorf("%s is there already and is never overwritten; remove it to clone the fleet anew", file)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("clone a fleet: %w", err)
	}
	c := &cloning{dir: dir, from: filepath.Dir(fleetFile), progress: progress, taken: map[string]bool{}}
	var replaced []manifest.Replacement
	var failed []error
	for _, r := range settings.Repos {
		to, err := c.repository(ctx, r)
		failed = append(failed, err)
		replaced = append(replaced, manifest.Replacement{Repo: r, Path: to.path, Manifest: to.manifest})
	}
	if err := errors.Join(failed...); err != nil {
		return "", err
	}
	text, err := manifest.Rewrite(data, replaced)
	if err != nil {
		return "", err
	}
	return file, writeNew(file, text)
}

type cloning struct {
	dir, from string
	progress  func(fleet.Progress)
	git       git
	taken     map[string]bool
}

// moved is where a repository and its manifest are, seen from the new shoal.work.
type moved struct{ path, manifest string }

func (c *cloning) repository(ctx context.Context, r manifest.Repo) (moved, error) {
	m := moved{path: c.relative(r.Path), manifest: c.relative(r.Manifest)}
	if r.URL == "" || r.Pin != "" {
		return m, nil
	}
	name := repoName(r)
	if c.taken[name] {
		return m, fmt.Errorf("two repositories would be cloned into %s; give one of them a pin, or clone it yourself and name its path", name)
	}
	c.taken[name] = true
	m.path = "./" + name
	return m, c.clone(ctx, r, filepath.Join(c.dir, name))
}

// relative turns a path of the fleet file into one of the new file.
func (c *cloning) relative(path string) string {
	if path == "" || filepath.IsAbs(filepath.FromSlash(path)) {
		return path
	}
	from, err := filepath.Abs(filepath.Join(c.from, filepath.FromSlash(path)))
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(c.dir, from)
	if err != nil {
		return filepath.ToSlash(from)
	}
	if rel = filepath.ToSlash(rel); !strings.HasPrefix(rel, ".") {
		rel = "./" + rel
	}
	return rel
}

func (c *cloning) clone(ctx context.Context, r manifest.Repo, dir string) error {
	shown := Redact(r.URL)
	if _, err := os.Stat(dir); err == nil {
		remote, err := c.git.in(ctx, dir, "config", "--get", "remote.origin.url")
		if err == nil && canonical(remote) == canonical(r.URL) {
			return nil
		}
		return fmt.Errorf("%s is there and is no clone of %s; move it away first", dir, shown)
	}
	if c.progress != nil {
		c.progress(fleet.Progress{Time: time.Now(), Phase: fleet.PhaseResolve, Text: "clone " + shown})
	}
	if _, err := c.git.in(ctx, c.dir, "clone", "--quiet", "--recurse-submodules", "--", r.URL, dir); err != nil {
		return errors.Join(fmt.Errorf("clone %s: %s", shown, strings.ReplaceAll(err.Error(), r.URL, shown)), removeAll(dir))
	}
	return nil
}
