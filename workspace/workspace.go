// Package workspace finds the repositories of a fleet and makes releases of them: it reads shoal.work,
// clones and pins, watches clones, builds, resolves secrets, and guesses a manifest for a repository
// that has none.
//
// It stands at the beginning of the walk of a change: what it loads and builds, deploy rolls out. It
// runs the installed git and nothing else by itself; `build` goes through [Config.Run].
//
// A [Workspace] is safe for concurrent use. Builds of one service take turns; builds of different
// services do not wait for each other.
package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/manifest"
)

// Config is what a [Workspace] is made of.
type Config struct {
	File  string // shoal.work
	Cache string // releases, build trees and clones; [CacheDir] where empty
	Data  string // the data folder, which is never part of a release or a change; `.shoal` beside File where empty

	// Run runs a `build`. It is nil where nothing is built (init, clone, check).
	Run func(ctx context.Context, c Command) error
	// Progress is told of clones, builds and warnings; nil: nobody is. It is called from any goroutine.
	Progress func(fleet.Progress)
}

// Command is a command line for [Config.Run].
type Command struct {
	Dir    string
	Shell  string   // run by `/bin/sh -c`
	Env    []string // the whole environment, NAME=value
	Output func(line string)
}

// Workspace is an open shoal.work.
type Workspace struct {
	config Config
	file   string // absolute
	dir    string // of file
	git    git

	mu       sync.Mutex
	settings *manifest.Workspace
	services []*Service
	moved    chan struct{}          // closed, and made anew, when services are in other places
	building map[string]*sync.Mutex // by what must not be done twice at a time
	stamps   map[string]string      // by service: what its clone was like when it was last built
}

// Service is one service of the fleet, and where its code is.
type Service struct {
	Manifest *manifest.Manifest // needs are bound, instances are those of this environment
	Origin   fleet.Origin
	Source   string // path as shoal.work has it, URL@PIN without credentials, or the external address

	Repository   string // its identity: the origin URL, without credentials, else the path
	Dir          string // the clone, or the checkout of the pin; empty for an external without repository
	ManifestPath string // absolute; empty where it cannot be edited (a pin's, an external's without one)
	Commit       string // 40 hexadecimal digits; empty before the first commit
	Dirty        bool   // the clone differs from Commit
	External     string // HOST:PORT where it runs outside Shoal

	manifestData []byte
	prefix       string // of Dir within its repository, with a slash at its end; empty at the root
}

// Command returns what starts the service: `dev` in edit mode where the manifest has it, else `run`.
func (s *Service) Command() string {
	if s.dev() {
		return s.Manifest.Dev
	}
	return s.Manifest.Run
}

func (s *Service) dev() bool { return s.Origin == fleet.Edit && s.Manifest.Dev != "" }

// inClone says that the service runs in its clone: its tool reloads by itself, or nothing is built and
// the ignored files that it needs (an installed node_modules) are there.
func (s *Service) inClone() bool {
	return s.dev() || s.Origin == fleet.Edit && s.Manifest.Build == ""
}

// Stays reports whether the service cannot run on another machine than this: it runs in its clone.
func (s *Service) Stays() bool { return s.inClone() }

// Open reads shoal.work. Its repositories are first looked at by [Workspace.Load].
func Open(c Config) (*Workspace, error) {
	file, err := filepath.Abs(c.File)
	if err != nil {
		return nil, fmt.Errorf("open workspace %s: %w", c.File, err)
	}
	if c.Cache == "" {
		if c.Cache, err = CacheDir(); err != nil {
			return nil, err
		}
	}
	if c.Data == "" {
		c.Data = filepath.Join(filepath.Dir(file), ".shoal")
	}
	for _, p := range []*string{&file, &c.Cache, &c.Data} {
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, fmt.Errorf("open workspace %s: %w", c.File, err)
		}
		*p = real(*p)
	}
	w := &Workspace{config: c, file: file, dir: filepath.Dir(file), building: map[string]*sync.Mutex{}, stamps: map[string]string{}, moved: make(chan struct{})}
	return w, w.readSettings()
}

// readSettings reads shoal.work again.
func (w *Workspace) readSettings() error {
	data, err := os.ReadFile(w.file)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is not there; `shoal up` in the folder of your repositories writes one", w.file)
	}
	if err != nil {
		return fmt.Errorf("read the workspace: %w", err)
	}
	s, err := manifest.ParseWorkspace(w.show(w.file), data)
	if err != nil {
		return err
	}
	if s.Fleet == "" {
		s.Fleet = fleetName(w.dir)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settings = s
	return nil
}

// Settings returns shoal.work as it was last read. The fleet's name is filled in.
func (w *Workspace) Settings() *manifest.Workspace {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.settings
}

// File returns the absolute path of shoal.work.
func (w *Workspace) File() string { return w.file }

// Cache returns the folder of releases, build trees and clones that is in use.
func (w *Workspace) Cache() string { return w.config.Cache }

// CacheDir returns the folder of releases, build trees and clones: $XDG_CACHE_HOME/shoal, else
// ~/.cache/shoal (XDG Base Directory Specification), and the system's own place on darwin and windows.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w; set XDG_CACHE_HOME", err)
	}
	return filepath.Join(dir, "shoal"), nil
}

func (w *Workspace) progress(service string, phase fleet.Phase, text string) {
	if w.config.Progress == nil {
		return
	}
	w.config.Progress(fleet.Progress{Time: time.Now(), Service: service, Phase: phase, Text: text})
}

// show returns a path as messages show it: relative to the folder of shoal.work where it is below it, with
// forward slashes.
func (w *Workspace) show(path string) string {
	rel, err := filepath.Rel(w.dir, path)
	if err != nil || !filepath.IsLocal(rel) {
		return filepath.ToSlash(path)
	}
	return filepath.ToSlash(rel)
}

// resolve makes a path of shoal.work absolute and free of links.
func (w *Workspace) resolve(path string) string {
	path = filepath.FromSlash(path)
	if !filepath.IsAbs(path) {
		path = filepath.Join(w.dir, path)
	}
	return real(path)
}

// real follows the links of a path as far as it exists: paths are compared by their text, and the watch of a
// folder tells names below the path that it was given.
func real(path string) string {
	if followed, err := filepath.EvalSymlinks(path); err == nil {
		return followed
	}
	above := filepath.Dir(path)
	if above == path {
		return path
	}
	return filepath.Join(real(above), filepath.Base(path))
}
