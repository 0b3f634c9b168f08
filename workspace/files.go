package workspace

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// files lists what a release of a clone is made of: the tracked files that are there, and the files that
// are neither tracked nor ignored, submodules included; relative, with forward slashes, sorted. A
// repository that merely lies within the clone is no part of it, as for git.
func (w *Workspace) files(ctx context.Context, dir string) ([]string, error) {
	tracked, err := w.git.in(ctx, dir, "ls-files", "-z", "--stage")
	if err != nil {
		return nil, fmt.Errorf("list the files of %s: %w", dir, err)
	}
	others, err := w.git.in(ctx, dir, "ls-files", "-z", "--others", "--exclude-standard")
	if err != nil {
		return nil, fmt.Errorf("list the files of %s: %w", dir, err)
	}
	files := nulls(others)
	for _, entry := range nulls(tracked) {
		mode, path, _ := strings.Cut(entry, " ")
		_, path, _ = strings.Cut(path, "\t")
		if mode != "160000" {
			files = append(files, path)
			continue
		}
		below, err := w.submodule(ctx, filepath.Join(dir, filepath.FromSlash(path)))
		if err != nil {
			return nil, err
		}
		for _, f := range below {
			files = append(files, path+"/"+f)
		}
	}
	files = slices.DeleteFunc(files, func(path string) bool { return strings.HasSuffix(path, "/") || w.own(dir, path) })
	slices.Sort(files)
	return slices.Compact(files), nil
}

// listed lists the files of a service that is about to be built, and remembers what they were like, so that
// [Workspace.Watch] can tell a change that came before it began.
func (w *Workspace) listed(ctx context.Context, s *Service) ([]string, error) {
	files, err := w.files(ctx, s.Dir)
	if err == nil && s.Origin == fleet.Edit {
		now := stamp(s.Dir, files)
		w.mu.Lock()
		w.stamps[s.Manifest.Service] = now
		w.mu.Unlock()
	}
	return files, err
}

// stamp sums up files by name, size, mode and time.
func stamp(dir string, files []string) string {
	sum := sha256.New()
	for _, f := range files {
		if info, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(f))); err == nil {
			fmt.Fprintf(sum, "%s\x00%d %d %d\n", f, info.Size(), info.Mode(), info.ModTime().UnixNano())
		}
	}
	return string(sum.Sum(nil))
}

// submodule lists a submodule's files; one that was not checked out has none.
func (w *Workspace) submodule(ctx context.Context, dir string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(dir, ".git")); err != nil {
		return nil, nil
	}
	return w.files(ctx, dir)
}

// ignored lists what git ignores in a clone, a folder that is ignored whole as one entry with a slash at
// its end. Files that a service may need at run time come first.
func (w *Workspace) ignored(ctx context.Context, dir string) ([]string, error) {
	out, err := w.git.in(ctx, dir, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
	if err != nil {
		return nil, fmt.Errorf("list the ignored files of %s: %w", dir, err)
	}
	all := slices.DeleteFunc(nulls(out), func(path string) bool { return w.own(dir, strings.TrimSuffix(path, "/")) })
	slices.SortFunc(all, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return all, nil
}

func rank(path string) int {
	switch {
	case strings.HasPrefix(filepath.Base(path), ".env"):
		return 0
	case !strings.HasSuffix(path, "/"):
		return 1
	}
	return 2
}

func nulls(s string) []string {
	return slices.DeleteFunc(strings.Split(s, "\x00"), func(s string) bool { return s == "" })
}
