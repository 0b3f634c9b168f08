package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/manifest"
)

// Changes are told once nothing more has changed for settleTime, or at the latest after longestWait: an
// editor's save is several events, a branch switch is thousands.
const (
	settleTime  = 100 * time.Millisecond
	longestWait = 3 * time.Second
)

// Watch tells, until ctx ends, which service's clone has changed in what git does not ignore. The name is
// empty where shoal.work or a manifest changed: then the workspace must be loaded again. A service with `dev`
// is told of its manifest only. changed is called from one goroutine; changes that come while it runs are told
// after it returns. Watch follows what [Workspace.Load] returned last, also when that is called again. A service
// that was built, and changed before Watch began, is told at once.
func (w *Workspace) Watch(ctx context.Context, changed func(service string)) error {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return watchError(w.dir, err)
	}
	defer func() { _ = n.Close() }()
	s := &sight{w: w, notify: n, folders: map[string]bool{}, told: map[string]bool{}}
	if err := s.begin(ctx, changed); ctx.Err() == nil {
		return err
	}
	return nil
}

// begin looks, tells what was missed, and goes on to what happens.
func (s *sight) begin(ctx context.Context, changed func(string)) error {
	if err := s.lookAgain(ctx, changed); err != nil {
		return err
	}
	return s.run(ctx, changed)
}

func (s *sight) lookAgain(ctx context.Context, changed func(string)) error {
	if err := s.look(ctx); err != nil {
		return err
	}
	for _, name := range s.missed(ctx) {
		changed(name)
	}
	return nil
}

// sight is what a Watch sees.
type sight struct {
	w       *Workspace
	notify  *fsnotify.Watcher
	folders map[string]bool // that are watched
	clones  []clone         // the deepest first, so that the first match is the right one
	files   map[string]bool // shoal.work and the manifests
	told    map[string]bool // paths that wait to be told
	moved   <-chan struct{} // closed when Load finds other repositories
}

// missed names the services whose clone is not what was built.
func (s *sight) missed(ctx context.Context) []string {
	var names []string
	for _, c := range s.clones {
		s.w.mu.Lock()
		built, known := s.w.stamps[c.service]
		s.w.mu.Unlock()
		if !known || c.dev {
			continue
		}
		if files, err := s.w.files(ctx, c.dir); err == nil && stamp(c.dir, files) != built {
			names = append(names, c.service)
		}
	}
	slices.Sort(names)
	return names
}

type clone struct {
	dir, service string
	dev          bool
}

// look finds what there is to watch, and watches it.
func (s *sight) look(ctx context.Context) error {
	s.w.mu.Lock()
	services := s.w.services
	s.moved = s.w.moved
	s.w.mu.Unlock()
	s.clones, s.files = nil, map[string]bool{s.w.file: true}
	for _, v := range services {
		if v.ManifestPath != "" {
			s.files[v.ManifestPath] = true
		}
		if v.Origin == fleet.Edit {
			s.clones = append(s.clones, clone{v.Dir, v.Manifest.Service, v.dev()})
		}
	}
	slices.SortFunc(s.clones, func(a, b clone) int { return len(b.dir) - len(a.dir) })
	for file := range s.files {
		if err := s.add(filepath.Dir(file)); err != nil {
			return err
		}
	}
	for _, c := range s.clones {
		if err := s.walk(ctx, c, c.dir); err != nil {
			return err
		}
	}
	return nil
}

// add watches a folder. One that vanished meanwhile is no mistake.
func (s *sight) add(dir string) error {
	if s.folders[dir] {
		return nil
	}
	err := s.notify.Add(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return watchError(dir, err)
	}
	s.folders[dir] = true
	return nil
}

// walk watches dir and the folders in it, except those that git ignores and those of other clones.
func (s *sight) walk(ctx context.Context, c clone, dir string) error {
	ignored, err := s.ignoredFolders(ctx, c)
	if err != nil {
		return s.add(c.dir) // the clone is gone, or is being made anew: its files will tell
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // unreadable, or gone: nothing of it can be released either
		}
		if d.Name() == ".git" || ignored[path] || s.w.owns(path) || path != c.dir && s.isClone(path) {
			return filepath.SkipDir
		}
		return s.add(path)
	})
}

func (w *Workspace) owns(path string) bool {
	return path == w.config.Data || path == w.config.Cache
}

func (s *sight) isClone(path string) bool {
	return slices.ContainsFunc(s.clones, func(c clone) bool { return c.dir == path })
}

func (s *sight) ignoredFolders(ctx context.Context, c clone) (map[string]bool, error) {
	all, err := s.w.ignored(ctx, c.dir)
	if err != nil {
		return nil, err
	}
	folders := map[string]bool{}
	for _, path := range all {
		if dir, ok := strings.CutSuffix(path, "/"); ok {
			folders[filepath.Join(c.dir, filepath.FromSlash(dir))] = true
		}
	}
	return folders, nil
}

// run gathers events until they settle, and tells them.
func (s *sight) run(ctx context.Context, changed func(string)) error {
	settled := time.NewTimer(time.Hour)
	settled.Stop()
	var first time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.moved:
			if err := s.lookAgain(ctx, changed); err != nil {
				return err
			}
		case e, ok := <-s.notify.Events:
			if !ok {
				return nil
			}
			if !s.take(e) {
				continue
			}
			if first.IsZero() {
				first = time.Now()
			}
			settled.Reset(max(0, min(settleTime, time.Until(first.Add(longestWait)))))
		case err := <-s.notify.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return watchError(s.w.dir, err)
			}
			s.overflow()
			settled.Reset(settleTime)
		case <-settled.C:
			if s.busy() && time.Since(first) < 10*longestWait {
				settled.Reset(settleTime)
				continue
			}
			first = time.Time{}
			if err := s.tell(ctx, changed); err != nil {
				return err
			}
		}
	}
}

// take notes an event, and says whether it may matter.
func (s *sight) take(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod && !s.executable(e.Name) {
		return false // a reader's access time, a backup tool; the executable bit is what a release keeps
	}
	if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
		s.forget(e.Name)
	}
	if !s.files[e.Name] && s.of(e.Name) == nil {
		return false
	}
	s.told[e.Name] = true
	return true
}

func (s *sight) executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// forget drops a folder that is gone, with those in it: the system has dropped its watches already, or, for
// one that was renamed, would tell the old names.
func (s *sight) forget(dir string) {
	if !s.folders[dir] {
		return
	}
	for f := range s.folders {
		if f == dir || strings.HasPrefix(f, dir+string(filepath.Separator)) {
			_ = s.notify.Remove(f)
			delete(s.folders, f)
		}
	}
}

// of returns the clone that a path lies in, or nil.
func (s *sight) of(path string) *clone {
	if s.w.own(filepath.Dir(path), filepath.Base(path)) {
		return nil
	}
	for i, c := range s.clones {
		rest, ok := strings.CutPrefix(path, c.dir+string(filepath.Separator))
		if path == c.dir || ok && rest != ".git" && !strings.HasPrefix(rest, ".git"+string(filepath.Separator)) {
			return &s.clones[i]
		}
	}
	return nil
}

// overflow makes up for events that the system dropped: everything may have changed.
func (s *sight) overflow() {
	for _, c := range s.clones {
		s.told[filepath.Join(c.dir, manifest.File)] = true
	}
	s.told[s.w.file] = true
}

// busy says whether git is in the middle of changing a clone that waits to be told (a checkout, a rebase).
func (s *sight) busy() bool {
	for path := range s.told {
		if c := s.of(path); c != nil {
			if _, err := os.Stat(filepath.Join(c.dir, ".git", "index.lock")); err == nil {
				return true
			}
		}
	}
	return false
}

// tell sorts out what was noted: new folders are watched, what git ignores is dropped, and the rest is told,
// each service once.
func (s *sight) tell(ctx context.Context, changed func(string)) error {
	paths := slices.Sorted(maps.Keys(s.told))
	s.told = map[string]bool{}
	again := slices.ContainsFunc(paths, func(p string) bool { return s.files[p] })
	names, err := s.changedServices(ctx, paths)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(paths, func(p string) bool { return filepath.Base(p) == ".gitignore" }) {
		if err := s.look(ctx); err != nil { // before it is told: what changes from then on must be seen
			return err
		}
	}
	if again {
		changed("")
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return nil
		}
		changed(name)
	}
	return nil
}

func (s *sight) changedServices(ctx context.Context, paths []string) ([]string, error) {
	byClone := map[clone][]string{}
	for _, p := range paths {
		if c := s.of(p); c != nil {
			byClone[*c] = append(byClone[*c], p)
		}
	}
	var names []string
	for c, all := range byClone {
		all, err := s.unignored(ctx, c, all)
		if ctx.Err() != nil {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for _, p := range all {
			if info, err := os.Lstat(p); err == nil && info.IsDir() {
				if err := s.walk(ctx, c, p); err != nil && ctx.Err() == nil {
					return nil, err
				}
			}
		}
		if len(all) > 0 && !c.dev {
			names = append(names, c.service)
		}
	}
	slices.Sort(names)
	return names, nil
}

// unignored drops the paths that git ignores. git check-ignore never names a tracked file, and reads every
// .gitignore, .git/info/exclude and the user's own.
func (s *sight) unignored(ctx context.Context, c clone, paths []string) ([]string, error) {
	var relative, left []string
	for _, p := range paths {
		if p == c.dir { // the clone itself came back
			left = append(left, p)
		} else if rel, err := filepath.Rel(c.dir, p); err == nil {
			relative = append(relative, filepath.ToSlash(rel))
		}
	}
	if _, err := os.Stat(c.dir); err != nil || len(relative) == 0 {
		return left, nil
	}
	out, err := s.w.git.run(ctx, c.dir, strings.Join(relative, "\x00")+"\x00", "check-ignore", "-z", "--stdin")
	if err != nil && !exitedWith(err, 1) { // 1: none is ignored
		return paths, nil // git is in the middle of something: better a build too many than one too few
	}
	ignored := nulls(out)
	for _, rel := range relative {
		if !slices.Contains(ignored, rel) {
			left = append(left, filepath.Join(c.dir, filepath.FromSlash(rel)))
		}
	}
	return left, nil
}

func watchError(dir string, err error) error {
	if hint := limitHint(err); hint != "" {
		return fmt.Errorf("watch %s: %w; %s", dir, err, hint)
	}
	return fmt.Errorf("watch %s: %w", dir, err)
}
