package workspace

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// maxIgnored bounds [fleet.Release.Ignored]: it is a hint beside a failure, not a list to work from.
const maxIgnored = 50

// Build makes the release of what a service's clone or checkout has now, and returns it at once where it
// is there already. Its directory holds the files of the repository and what `build` made of them. A service
// that runs in its clone (`dev`, or edit mode without `build`) has the clone as its directory. A build that
// fails is a [BuildError].
func (w *Workspace) Build(ctx context.Context, s *Service) (fleet.Release, error) {
	if s.Origin == fleet.External {
		return fleet.Release{}, fmt.Errorf("%s runs outside Shoal at %s; there is nothing to build", s.Manifest.Service, s.External)
	}
	turn := w.turn("build " + s.Manifest.Service)
	turn.Lock()
	defer turn.Unlock()
	r := fleet.Release{Commit: s.Commit, Dirty: s.Dirty}
	if s.Origin == fleet.Edit {
		now := *s
		w.label(ctx, &now)
		r.Commit, r.Dirty = now.Commit, now.Dirty
	}
	if s.inClone() {
		return w.releaseInClone(ctx, s, r)
	}
	return w.releaseApart(ctx, s, r)
}

// releaseInClone names the state of the clone. Ignored files are part of what runs, so they are part of the
// id, by size and time; a tool that reloads by itself is not restarted for files at all.
func (w *Workspace) releaseInClone(ctx context.Context, s *Service, r fleet.Release) (fleet.Release, error) {
	r.Dir = s.Dir
	if s.dev() {
		r.ID = releaseID(nil, s.manifestData, "dev")
		return r, nil
	}
	files, err := w.files(ctx, s.Dir)
	if err != nil {
		return r, err
	}
	ignored, err := w.ignored(ctx, s.Dir)
	if err != nil {
		return r, err
	}
	entries, err := sums(ctx, s.Dir, files)
	if err != nil {
		return r, err
	}
	r.ID = releaseID(entries, s.manifestData, fingerprint(s.Dir, ignored))
	return r, nil
}

// sums sums files where they are.
func sums(ctx context.Context, dir string, files []string) (map[string]indexEntry, error) {
	entries := map[string]indexEntry{}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		full := filepath.Join(dir, filepath.FromSlash(f))
		info, err := os.Lstat(full)
		if err != nil || info.IsDir() {
			continue
		}
		e := indexEntry{Mode: info.Mode()}
		if info.Mode()&fs.ModeSymlink != 0 {
			target, _ := os.Readlink(full)
			sum := sha256.Sum256([]byte(target))
			e.Sum = hex.EncodeToString(sum[:])
		} else if e.Sum, err = sumFile(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read %s: %w", f, err)
		}
		entries[f] = e
	}
	return entries, nil
}

// fingerprint sums up ignored files by size and time, and ignored folders by their own time and that of
// what lies directly in them: an installed node_modules has thousands of files, and changes at its top.
func fingerprint(dir string, ignored []string) string {
	sum := sha256.New()
	note := func(path string, info fs.FileInfo) {
		if info.IsDir() {
			fmt.Fprintf(sum, "%s %d\n", path, info.ModTime().UnixNano())
			return
		}
		fmt.Fprintf(sum, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
	}
	for _, path := range ignored {
		full := filepath.Join(dir, filepath.FromSlash(path))
		if info, err := os.Lstat(full); err == nil && !transient(path) {
			note(path, info)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// transient tells ignored files that running a service writes: they must not make a new release of it.
func transient(path string) bool {
	path = strings.TrimSuffix(path, "/")
	base := filepath.Base(path)
	if slices.Contains([]string{"__pycache__", "tmp", "log", "logs", "coverage", ".pytest_cache", ".cache"}, base) {
		return true
	}
	return slices.Contains([]string{".log", ".pid", ".pyc", ".sqlite", ".sqlite3", ".db", ".db-wal", ".db-shm", ".db-journal", ".sock", ".tmp", ".swp"}, filepath.Ext(base))
}

// releaseApart builds in the build tree and copies the result.
func (w *Workspace) releaseApart(ctx context.Context, s *Service, r fleet.Release) (fleet.Release, error) {
	files, err := w.files(ctx, s.Dir)
	if err != nil {
		return r, err
	}
	if s.Origin == fleet.Edit {
		if r.Ignored, err = w.ignored(ctx, s.Dir); err != nil {
			return r, err
		}
		r.Ignored = r.Ignored[:min(len(r.Ignored), maxIgnored)]
	}
	t, err := w.tree(s)
	if err != nil {
		return r, err
	}
	defer func() { _ = t.root.Close() }()
	if err := t.sync(ctx, files); err != nil {
		return r, w.diskError("build "+s.Manifest.Service, err)
	}
	r.ID = releaseID(t.index.Files, s.manifestData, "")
	r.Dir = filepath.Join(w.releases(s.Manifest.Service), r.ID)
	if _, err := os.Stat(r.Dir); err == nil {
		now := time.Now()
		_ = os.Chtimes(r.Dir, now, now) // the newest is never collected
		return r, nil
	}
	if err := w.runBuild(ctx, s, t); err != nil {
		return r, err
	}
	return r, w.keep(ctx, s, t, r.Dir)
}

func (w *Workspace) releases(service string) string {
	return filepath.Join(w.config.Cache, "releases", service)
}

// BuildError is a build that failed, with its last words.
type BuildError struct {
	Service string
	Err     error
	Output  []string // the last lines, 40 at most
}

// Error says which build failed, how, and what the compiler said.
func (e *BuildError) Error() string {
	text := fmt.Sprintf("build of %s: %v", e.Service, e.Err)
	if len(e.Output) > 0 {
		text += "\n    " + strings.Join(e.Output, "\n    ")
	}
	return text
}

// Unwrap returns how the build ended.
func (e *BuildError) Unwrap() error { return e.Err }

func (w *Workspace) runBuild(ctx context.Context, s *Service, t *tree) error {
	m := s.Manifest
	if m.Build == "" {
		return nil
	}
	if w.config.Run == nil {
		return errors.New("this workspace was opened to look, not to build")
	}
	w.progress(m.Service, fleet.PhaseBuild, m.Build)
	last := &tail{}
	err := w.config.Run(ctx, Command{Dir: t.dir, Shell: m.Build, Env: buildEnv(t.dir), Output: func(line string) {
		last.add(line)
		w.progress(m.Service, fleet.PhaseBuild, line)
	}})
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("build of %s: %w", m.Service, ctx.Err())
	}
	return &BuildError{Service: m.Service, Err: err, Output: last.lines()}
}

// buildEnv is the user's whole environment. Git is kept from finding a repository above the build tree, where
// a home folder is one.
func buildEnv(dir string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "SHOAL_") || strings.HasPrefix(v, "GIT_DIR=") || strings.HasPrefix(v, "GIT_WORK_TREE=") || strings.HasPrefix(v, "GIT_INDEX_FILE=")
	})
	return append(env, "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
}

// keep copies the tree beside its place and renames it there, so that a release is whole or is not there.
func (w *Workspace) keep(ctx context.Context, s *Service, t *tree, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return w.diskError("make the release of "+s.Manifest.Service, err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".new-*")
	if err != nil {
		return w.diskError("make the release of "+s.Manifest.Service, err)
	}
	err = copyTree(ctx, t.dir, temp, dir)
	if err == nil {
		err = settle(temp)
	}
	if err == nil {
		err = os.Rename(temp, dir)
	}
	if err == nil {
		return nil
	}
	_ = removeAll(temp)
	if _, there := os.Stat(dir); there == nil {
		return nil // another process made the same one
	}
	return w.diskError("make the release of "+s.Manifest.Service, err)
}
