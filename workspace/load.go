package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/manifest"
)

// Load reads shoal.work again, finds every repository (cloning and fetching what is missing, and, with
// update, moving the locked commits), parses and checks the manifests, and returns the services sorted by
// name. Where something is wrong the error holds every mistake of every file, as [manifest.Errors];
// warnings go to [Config.Progress].
func (w *Workspace) Load(ctx context.Context, update bool) ([]*Service, error) {
	if err := w.readSettings(); err != nil {
		return nil, err
	}
	settings := w.Settings()
	l := &loading{w: w, settings: settings, external: map[string]manifest.External{}}
	for _, e := range settings.Externals {
		l.external[e.Service] = e
	}
	found, err := l.repositories(ctx, update)
	if err != nil {
		return nil, err
	}
	services := l.services(found)
	if err := l.check(services); err != nil {
		return nil, err
	}
	w.keepServices(services)
	return services, nil
}

// keepServices remembers what was loaded, and wakes every Watch where it is in other places than before.
func (w *Workspace) keepServices(services []*Service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	same := slices.EqualFunc(w.services, services, func(a, b *Service) bool {
		return a.Manifest.Service == b.Manifest.Service && a.Dir == b.Dir && a.Origin == b.Origin && a.ManifestPath == b.ManifestPath && a.dev() == b.dev()
	})
	w.services = services
	if !same {
		close(w.moved)
		w.moved = make(chan struct{})
	}
}

// loading is one run of Load.
type loading struct {
	w        *Workspace
	settings *manifest.Workspace
	external map[string]manifest.External

	mu     sync.Mutex
	errors manifest.Errors
}

// repositories looks at all of them at once: a clone over the network must not wait for another.
func (l *loading) repositories(ctx context.Context, update bool) ([]*Service, error) {
	lock, err := readLock(l.w.lockFile())
	if err != nil {
		return nil, err
	}
	found := make([]*Service, len(l.settings.Repos))
	slots := make(chan struct{}, 8)
	var wait sync.WaitGroup
	for i, r := range l.settings.Repos {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			s, err := l.repository(ctx, r, lock, update)
			if err != nil {
				l.fail(r, err)
				return
			}
			found[i] = s
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load the workspace: %w", err)
	}
	if err := lock.write(l.settings.Repos); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(s *Service) bool { return s == nil }), nil
}

// fail notes what is wrong with a repository, at its line of shoal.work, or, of its manifest, in it.
func (l *loading) fail(r manifest.Repo, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var own manifest.Errors
	if errors.As(err, &own) {
		l.errors = append(l.errors, own...)
		return
	}
	var hinted *hinted
	e := &manifest.Error{File: l.settings.File, Line: r.Line, Column: r.Column, Message: err.Error()}
	if errors.As(err, &hinted) {
		e.Message, e.Hint = hinted.wrong, hinted.right
	}
	l.errors = append(l.errors, e)
}

// hinted is an error with what would be right.
type hinted struct{ wrong, right string }

// Error returns both halves.
func (h *hinted) Error() string { return h.wrong + "; " + h.right }

// repository finds one repository and reads its manifest.
func (l *loading) repository(ctx context.Context, r manifest.Repo, lock *lock, update bool) (s *Service, err error) {
	if r.Path != "" {
		s, err = l.w.local(ctx, r)
	} else {
		s, err = l.w.pinned(ctx, r, lock, update)
	}
	if err != nil {
		return nil, err
	}
	return s, l.w.readManifest(s, r)
}

// local looks at a clone of the user's.
func (w *Workspace) local(ctx context.Context, r manifest.Repo) (*Service, error) {
	dir := w.resolve(r.Path)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, &hinted{fmt.Sprintf("the repository %s is not there (%s)", r.Path, dir), "clone it there, or correct the path"}
	case err != nil:
		return nil, fmt.Errorf("look at the repository %s: %w", r.Path, err)
	case !info.IsDir():
		return nil, &hinted{fmt.Sprintf("%s is no folder", r.Path), "name the folder of a git repository"}
	}
	prefix, err := w.git.in(ctx, dir, "rev-parse", "--show-prefix")
	if err != nil {
		if owner := dubious(err); owner != "" {
			return nil, &hinted{fmt.Sprintf("git refuses %s: %s", r.Path, owner), "git config --global --add safe.directory " + dir}
		}
		var said *gitError
		if !errors.As(err, &said) {
			return nil, err
		}
		return nil, &hinted{fmt.Sprintf("%s is not a git repository", r.Path), fmt.Sprintf("run `git init` in %s", dir)}
	}
	s := &Service{Origin: fleet.Edit, Source: r.Path, Dir: dir, Repository: dir, prefix: strings.TrimSuffix(prefix, "\n")}
	if remote, err := w.git.in(ctx, dir, "config", "--get", "remote.origin.url"); err == nil {
		s.Repository = canonical(remote)
	}
	w.label(ctx, s)
	return s, nil
}

// dubious tells git's refusal of a repository that another user owns.
func dubious(err error) string {
	if strings.Contains(err.Error(), "dubious ownership") {
		return "it belongs to another user"
	}
	return ""
}

// label fills what names a clone's state: its commit, none before the first, and whether it differs from that
// in more than Shoal's own files. A git that fails here leaves the labels empty: they are for people.
func (w *Workspace) label(ctx context.Context, s *Service) {
	out, err := w.git.in(ctx, s.Dir, "status", "--porcelain=v2", "--branch", "-z", "--no-renames", "--untracked-files=normal", "--", ".")
	if err != nil {
		return
	}
	s.Commit, s.Dirty = "", false
	for _, entry := range nulls(out) {
		if oid, ok := strings.CutPrefix(entry, "# branch.oid "); ok && commitID.MatchString(oid) {
			s.Commit = oid
		}
		if path := statusPath(entry); path != "" && !w.own(s.Dir, strings.TrimPrefix(path, s.prefix)) {
			s.Dirty = true
		}
	}
}

// statusPath returns the path of an entry of git status (porcelain format version 2), or nothing for a header.
func statusPath(entry string) string {
	fields := map[byte]int{'1': 9, 'u': 11, '?': 2}[entry[0]]
	if fields == 0 {
		return ""
	}
	words := strings.SplitN(entry, " ", fields)
	return strings.TrimSuffix(words[len(words)-1], "/")
}

// own says whether a path within a clone is Shoal's: shoal.work, its lock, or the data folder, where the
// workspace lies in a repository.
func (w *Workspace) own(dir, path string) bool {
	full := filepath.Join(dir, filepath.FromSlash(path))
	if full == w.file || full == w.lockFile() {
		return true
	}
	for _, folder := range []string{w.config.Data, w.config.Cache} {
		if within(full, folder) && !within(dir, folder) { // a checkout lies in the cache
			return true
		}
	}
	return false
}

func within(path, folder string) bool {
	return path == folder || folder != "" && strings.HasPrefix(path, folder+string(filepath.Separator))
}

// readManifest reads the manifest of a repository, which may lie outside it.
func (w *Workspace) readManifest(s *Service, r manifest.Repo) error {
	file := filepath.Join(s.Dir, manifest.File)
	shown := s.show(w) + "/" + manifest.File
	if r.Manifest != "" {
		file = w.resolve(r.Manifest)
		shown = w.show(file)
	}
	data, err := os.ReadFile(file)
	switch {
	case errors.Is(err, os.ErrNotExist) && r.Manifest != "":
		return &hinted{fmt.Sprintf("the manifest %s is not there", shown), "correct the path, or write one there"}
	case errors.Is(err, os.ErrNotExist) && s.Origin == fleet.Edit:
		return &hinted{fmt.Sprintf("%s has no %s", r.Path, manifest.File), fmt.Sprintf("run `shoal init` in %s", s.Dir)}
	case errors.Is(err, os.ErrNotExist):
		return &hinted{fmt.Sprintf("%s has no %s at %.12s", s.Source, manifest.File, s.Commit),
			fmt.Sprintf("write one here and name it: `{url: %q, manifest: manifests/%s.yaml}`; `shoal init` in a clone makes it", s.Source, repoName(r))}
	case err != nil:
		return fmt.Errorf("read the manifest of %s: %w", s.Source, err)
	}
	if s.Manifest, err = manifest.Parse(shown, data); err != nil {
		return err
	}
	s.manifestData = data
	if s.Origin == fleet.Edit || r.Manifest != "" {
		s.ManifestPath = file
	}
	return nil
}

// show names a repository in front of its files' names.
func (s *Service) show(w *Workspace) string {
	if s.Origin == fleet.Edit {
		if shown := w.show(s.Dir); shown != "." {
			return shown
		}
		return filepath.Base(s.Dir)
	}
	name := s.Source[strings.LastIndexAny(s.Source, "/:")+1:]
	return strings.Replace(name, ".git", "", 1)
}

func repoName(r manifest.Repo) string {
	url := strings.TrimSuffix(strings.TrimRight(r.URL, "/"), ".git")
	return url[strings.LastIndexAny(url, "/:")+1:]
}

// services applies this environment: externals, bindings and counts.
func (l *loading) services(found []*Service) []*Service {
	for _, s := range found {
		m := s.Manifest
		if e, ok := l.external[m.Service]; ok {
			s.Origin, s.External, s.Source = fleet.External, e.Address(), e.Address()
			if len(m.Ports) == 0 {
				m.Ports = e.Manifest(l.settings.File).Ports
			}
			delete(l.external, m.Service)
		}
		if n := l.settings.Instances[m.Service]; n > 0 {
			m.Instances = n
		}
		if nodes := l.settings.Nodes[m.Service]; nodes != nil {
			m.Nodes = nodes
		}
		l.bind(m)
	}
	for _, e := range l.external {
		found = append(found, &Service{Manifest: e.Manifest(l.settings.File), Origin: fleet.External, External: e.Address(), Source: e.Address(), Repository: l.w.file})
	}
	slices.SortFunc(found, func(a, b *Service) int { return strings.Compare(a.Manifest.Service, b.Manifest.Service) })
	return found
}

func (l *loading) bind(m *manifest.Manifest) {
	for i := range m.Needs {
		for _, b := range l.settings.Bind {
			if b.Service == m.Service && b.Need == m.Needs[i].Name {
				m.Needs[i].Bound = b.Address
			}
		}
	}
}

// check compares the manifests with each other and with shoal.work. With a repository missing, what it
// would declare is unknown, so only what is certain is said.
func (l *loading) check(services []*Service) error {
	if len(l.errors) > 0 {
		return sortErrors(l.errors)
	}
	all := Manifests(services)
	warnings, err := manifest.Check(all)
	for _, e := range warnings {
		l.w.progress("", fleet.PhaseWarn, e.Error())
	}
	l.unbound(services)
	var wrong manifest.Errors
	for _, err := range []error{err, l.settings.CheckBindings(all)} {
		var some manifest.Errors
		if errors.As(err, &some) {
			wrong = append(wrong, some...)
		}
	}
	return sortErrors(wrong)
}

// unbound warns of needs that this environment does not have: dialled, they are refused.
func (l *loading) unbound(services []*Service) {
	for _, s := range services {
		for _, n := range s.Manifest.Needs {
			if n.Bound == "" && s.Origin != fleet.External {
				l.w.progress(s.Manifest.Service, fleet.PhaseWarn, fmt.Sprintf("the need `%s` of %s is bound to nothing here, and dialling it is refused; add `bind: {%s.%s: \"localhost:%d\"}` to %s",
					n.Name, s.Manifest.Service, s.Manifest.Service, n.Name, n.Port, l.settings.File))
			}
		}
	}
}

func sortErrors(all manifest.Errors) error {
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, func(a, b *manifest.Error) int {
		if a.File != b.File {
			return strings.Compare(a.File, b.File)
		}
		return a.Line - b.Line
	})
	return all
}

// Manifests returns the manifests of services, in their order.
func Manifests(services []*Service) []*manifest.Manifest {
	all := make([]*manifest.Manifest, len(services))
	for i, s := range services {
		all[i] = s.Manifest
	}
	return all
}

// Select returns the names of the services that args name, each with everything that it calls, directly or
// not; without args, of all. An argument is a service's name, or a repository as shoal.work has it.
func (w *Workspace) Select(services []*Service, args []string) ([]string, error) {
	all := Manifests(services)
	var known, names []string
	for _, m := range all {
		known = append(known, m.Service)
	}
	if len(args) == 0 {
		return known, nil
	}
	for _, arg := range args {
		name := w.named(services, arg)
		if name == "" && IsRepository(arg) {
			return nil, fmt.Errorf("%s is not among the repositories of %s; add it to `repos`", Redact(arg), w.file)
		}
		if near := manifest.Nearest(arg, known); name == "" && near != "" {
			return nil, fmt.Errorf("%s is no service of the fleet; did you mean %s?", arg, near)
		}
		if name == "" {
			return nil, fmt.Errorf("%s is no service of the fleet; there are %s", arg, strings.Join(known, ", "))
		}
		names = append(names, name)
	}
	return manifest.Callees(all, names...), nil
}

func (w *Workspace) named(services []*Service, arg string) string {
	for _, s := range services {
		same := s.Manifest.Service == arg
		if IsRepository(arg) {
			path, _ := filepath.Abs(arg)
			same = s.Dir != "" && (real(path) == s.Dir || w.resolve(arg) == s.Dir) || s.Source == Redact(arg)
		}
		if same {
			return s.Manifest.Service
		}
	}
	return ""
}
