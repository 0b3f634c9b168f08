package workspace_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalrun/shoal/workspace"
)

// watcher gathers what a Watch tells.
type watcher struct {
	p    *place
	told chan string
}

func (p *place) watch(w *workspace.Workspace) *watcher {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	v := &watcher{p: p, told: make(chan string, 100)}
	done := make(chan error, 1)
	go func() { done <- w.Watch(ctx, func(service string) { v.told <- service }) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
	// Watch has no sign of its own that it sees: a file is touched until that is told.
	for end := time.Now().Add(30 * time.Second); ; {
		p.write("shoal.work", p.content(p.dir, "shoal.work"))
		select {
		case <-v.told:
			v.drain()
			return v
		case <-time.After(300 * time.Millisecond):
		}
		if time.Now().After(end) {
			p.t.Fatal("the watch sees nothing")
		}
	}
}

// drain takes what is told until something that is written on purpose comes through.
func (v *watcher) drain() {
	for {
		select {
		case <-v.told:
		case <-time.After(500 * time.Millisecond):
			return
		}
	}
}

// until waits until service is told, and fails where another one is.
func (v *watcher) until(what, service string) {
	v.p.t.Helper()
	select {
	case got := <-v.told:
		if got != service {
			v.p.t.Errorf("%s: told %q, wanted %q", what, got, service)
		}
	case <-time.After(30 * time.Second):
		v.p.t.Fatalf("%s: nothing told", what)
	}
	v.drain()
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
	w := p.open("repos: [./a, ./b, {path: ./c, manifest: ext.yaml}]\n")
	p.load(w, false)
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

	// What is ignored says nothing: the next thing told is the sentinel's.
	p.write("a/out/x", "2", "a/x.log", "1", "a/src/gen", "1", "a/private", "1", "a/.git/whatever", "1", "b/f", "2", "c/.git/x", "1")
	p.write("c/f", "sentinel")
	v.until("ignored files", "c")

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
	w := p.open("repos: [./a]\n")
	p.load(w, false)
	v := p.watch(w)
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
	w := p.open("repos: [./a]\n")
	p.load(w, false)
	v := p.watch(w)
	p.write("a/shoal.yaml", service("a", "build: echo more"))
	if got := <-v.told; got != "" {
		t.Errorf("told %q first", got)
	}
	v.until("the service itself", "a")
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
	w := p.open("repos: [./a, ./b]\n")
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
