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
	files, err := w.listed(ctx, s)
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

// fingerprint sums up the ignored files that a service cannot run without: env files, and the folders of
// installed dependencies by their time, which changes with what lies at their top. Whatever else is ignored
// may be what the service itself writes, and that must not make a new release of it.
func fingerprint(dir string, ignored []string) string {
	sum := sha256.New()
	for _, path := range ignored {
		base := filepath.Base(path)
		if !strings.HasPrefix(base, ".env") && !slices.Contains([]string{"node_modules", ".venv", "venv", "vendor"}, base) {
			continue
		}
		if info, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(path))); err == nil {
			fmt.Fprintf(sum, "%s %t %d\n", path, info.IsDir(), info.ModTime().UnixNano())
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// releaseApart builds in the build tree and copies the result.
func (w *Workspace) releaseApart(ctx context.Context, s *Service, r fleet.Release) (fleet.Release, error) {
	files, err := w.listed(ctx, s)
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
	if err := w.noteOne(filepath.Dir(r.Dir), r.ID); err != nil {
		return r, w.diskError("make the release of "+s.Manifest.Service, err)
	}
	if _, err := os.Stat(r.Dir); err == nil {
		now := time.Now()
		_ = os.Chtimes(r.Dir, now, now) // the last used is the last to be collected
		return r, nil
	}
	if err := w.runBuild(ctx, s, t); err != nil {
		return r, err
	}
	return r, w.keep(ctx, s, t, r.Dir)
}

func (w *Workspace) releases(service string) string {
	return filepath.Dir(ReleaseDir(w.config.Cache, service, "any"))
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
	now := time.Now()
	if err == nil {
		err = errors.Join(os.Chtimes(temp, now, now), os.Rename(temp, dir))
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
