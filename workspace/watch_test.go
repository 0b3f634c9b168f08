package workspace_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shoalrun/shoal/workspace"
)

// watcher gathers what a Watch tells. Events come in the order in which they happened, so once a change of the
// service zz, made last, is told, everything before it was told, too.
type watcher struct {
	p    *place
	told chan string
	n    int
}

// openWatched opens a workspace of repositories and of zz, and loads it.
func (p *place) openWatched(repos string) *workspace.Workspace {
	p.t.Helper()
	p.repo("zz", "shoal.yaml", service("zz", "build: echo"), "f", "")
	w := p.open("repos: [" + repos + ", ./zz]\n")
	p.load(w, false)
	return w
}

func (p *place) watch(w *workspace.Workspace) *watcher {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	v := &watcher{p: p, told: make(chan string, 1000)}
	done := make(chan error, 1)
	go func() { done <- w.Watch(ctx, func(service string) { v.told <- service }) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
	v.until("the beginning")
	return v
}

// until waits until every one of services was told, and fails where any other is.
func (v *watcher) until(what string, services ...string) {
	v.p.t.Helper()
	missing := slices.Clone(services)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		v.n++
		v.p.write("zz/f", fmt.Sprint(v.n))
		if told, ok := v.round(); ok {
			for _, got := range told {
				if !slices.Contains(services, got) {
					v.p.t.Errorf("%s: told %q, wanted %q", what, got, services)
				}
				missing = slices.DeleteFunc(missing, func(s string) bool { return s == got })
			}
			if len(missing) == 0 {
				return
			}
		}
	}
	v.p.t.Fatalf("%s: %q was not told", what, missing)
}

// round returns what is told before zz is. ok is false where zz is not told for a while: the watch may not have
// begun.
func (v *watcher) round() (told []string, ok bool) {
	late := time.After(time.Second)
	for {
		select {
		case got := <-v.told:
			if got == "zz" {
				return told, true
			}
			told = append(told, got)
		case <-late:
			return told, len(told) > 0
		}
	}
}

func (p *place) rename(from, to string) {
	p.t.Helper()
	if err := os.Rename(filepath.Join(p.dir, from), filepath.Join(p.dir, to)); err != nil {
		p.t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a", "build: echo"), ".gitignore", "out/\n*.log\n", "src/deep/f", "1", "src/.gitignore", "gen\n", "tracked.log", "x")
	p.git("a", "add", "-f", "tracked.log")
	p.commit("a")
	p.repo("b", "shoal.yaml", service("b", "dev: x"), "f", "1")
	p.write("a/.git/info/exclude", "private\n", "a/out/x", "")
	p.write("ext.yaml", service("c"))
	p.repo("c", "f", "1")
	w := p.openWatched("./a, ./b, {path: ./c, manifest: ext.yaml}")
	v := p.watch(w)

	p.write("a/src/deep/f", "2")
	v.until("a file deep down", "a")
	p.write("a/new/deeper/f", "1")
	v.until("new folders", "a")
	p.write("a/new/deeper/f", "2")
	v.until("a file in a new folder", "a")
	p.write("a/src/deep/f~", "3")
	p.rename("a/src/deep/f~", "a/src/deep/f")
	v.until("an editor's rename", "a")
	p.rename("a/new", "a/renamed")
	v.until("a renamed folder", "a")
	p.write("a/renamed/deeper/f", "3")
	v.until("a file in a renamed folder", "a")
	p.write("a/tracked.log", "y")
	v.until("a tracked file that a pattern ignores", "a")
	if err := os.Remove(filepath.Join(p.dir, "a/src/deep/f")); err != nil {
		t.Fatal(err)
	}
	v.until("a deleted file", "a")

	p.write("a/out/x", "2", "a/x.log", "1", "a/src/gen", "1", "a/private", "1", "a/.git/whatever", "1", "b/f", "2", "c/.git/x", "1")
	v.until("what is ignored says nothing")
	p.write("c/f", "2")
	v.until("a repository whose manifest is elsewhere", "c")

	p.write("a/.gitignore", "*.log\n")
	v.until("a changed .gitignore", "a")
	p.write("a/out/x", "3")
	v.until("a folder that is no longer ignored", "a")

	p.write("ext.yaml", service("c", "owner: me"))
	v.until("a manifest outside", "")
	p.write("shoal.work", p.content(p.dir, "shoal.work")+"# more\n")
	v.until("shoal.work", "")
}

func TestWatchBranchSwitch(t *testing.T) {
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a", "build: echo"), "f", "1")
	p.git("a", "checkout", "-q", "-b", "other")
	for _, f := range []string{"a/x/1", "a/x/2", "a/y/z/3"} {
		p.write(f, "other", "a/f", "other")
	}
	p.commit("a")
	v := p.watch(p.openWatched("./a"))
	p.git("a", "checkout", "-q", "main")
	v.until("a branch switch", "a")
	p.git("a", "checkout", "-q", "other")
	v.until("a branch switch back", "a")
	p.write("a/y/z/3", "more")
	v.until("a file in a folder that came back", "a")
}

// A manifest in its repository is the workspace's business and its service's.
func TestWatchManifest(t *testing.T) {
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a", "build: echo"))
	v := p.watch(p.openWatched("./a"))
	p.write("a/shoal.yaml", service("a", "build: echo more"))
	v.until("the workspace and the service", "", "a")
}

// A repository that is added to shoal.work is watched once the workspace was loaded again.
func TestWatchFollowsLoad(t *testing.T) {
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a", "build: echo"))
	p.repo("b", "shoal.yaml", service("b", "build: echo"), "f", "1")
	w := p.open("repos: [./a]\n")
	p.load(w, false)
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		done <- w.Watch(ctx, func(name string) {
			if name == "" {
				p.load(w, false)
			}
			told <- name
		})
	}()
	defer func() { cancel(); <-done }()
	wait := func(what, want string, do func()) {
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
			do()
			select {
			case got := <-told:
				if got == want {
					return
				}
			case <-time.After(400 * time.Millisecond):
			}
		}
		t.Fatalf("%s: never told", what)
	}
	wait("shoal.work", "", func() { p.write("shoal.work", "repos: [./a, ./b]\n") })
	wait("the new repository", "b", func() { p.write("b/f", time.Now().String()) })
}

// A change between a build and the beginning of the watch is told.
func TestWatchTellsWhatItMissed(t *testing.T) {
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a", "build: echo"), "f", "1")
	p.repo("b", "shoal.yaml", service("b", "build: echo"), "f", "1")
	w := p.open("repos: [./a, ./b]\n")
	s := p.load(w, false)
	p.build(w, s["a"])
	p.build(w, s["b"])
	p.write("a/f", "longer")
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan string, 100)
	done := make(chan error, 1)
	go func() { done <- w.Watch(ctx, func(name string) { told <- name }) }()
	if got := <-told; got != "a" {
		t.Errorf("told %q", got)
	}
	cancel()
	if err := <-done; err != nil || len(told) > 0 {
		t.Errorf("%v, and told %q", err, <-told)
	}
}

// A clone behind a link, and one that is removed and cloned anew.
func TestWatchLinkAndReclone(t *testing.T) {
	p := newPlace(t)
	p.repo("real/a", "shoal.yaml", service("a", "build: echo"), "deep/f", "1")
	p.repo("b", "shoal.yaml", service("b", "build: echo"), "deep/f", "1")
	if err := os.Symlink(filepath.Join(p.dir, "real/a"), filepath.Join(p.dir, "a")); err != nil {
		t.Skip(err)
	}
	w := p.openWatched("./a, ./b")
	p.build(w, p.load(w, false)["a"])
	v := p.watch(w)
	p.write("a/deep/f", "2")
	v.until("a file behind a link", "a")
	p.git(".", "clone", "-q", "b", "again")
	p.rename("b", "old")
	v.until("a clone that is gone", "b")
	p.rename("again", "b")
	v.until("a clone that came back", "b")
	p.write("b/deep/f", "2")
	v.until("a file in it", "b")
}
