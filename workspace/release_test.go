package workspace_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/workspace"
)

func (p *place) build(w *workspace.Workspace, s *workspace.Service) fleet.Release {
	p.t.Helper()
	r, err := w.Build(p.t.Context(), s)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(r.ID) != 12 {
		p.t.Fatalf("release %+v", r)
	}
	return r
}

func (p *place) content(file ...string) string {
	data, err := os.ReadFile(filepath.Join(file...))
	if err != nil {
		return "absent"
	}
	return string(data)
}

const counting = `build: "echo built >> out/log && wc -l < out/log > out/n && cat src > out/copy"`

// The build tree keeps ignored outputs, loses deleted files and puts back what a build changed; releases are
// apart from it and from each other.
func TestBuild(t *testing.T) {
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a", counting), ".gitignore", "out/*\n!out/.keep\n.env\n", "out/.keep", "", "src", "1", "gone", "x")
	p.write("a/.env", "SECRET=1", "a/out/junk", "of the clone")
	w := p.open("repos: [./a]\n")
	s := p.load(w, false)["a"]
	one := p.build(w, s)
	if p.content(one.Dir, "out/copy") != "1" || p.content(one.Dir, ".env") != "absent" || p.content(one.Dir, "out/junk") != "absent" || p.content(one.Dir, "gone") != "x" {
		t.Errorf("the release is wrong: %v", one)
	}
	if !slices.Equal(one.Ignored, []string{".env", "out/junk"}) || one.Commit != s.Commit || one.Dirty {
		t.Errorf("%+v", one)
	}
	if !strings.HasPrefix(one.Dir, filepath.Join(p.dir, ".cache", "releases", "a")) || filepath.Base(one.Dir) != one.ID {
		t.Errorf("dir %s", one.Dir)
	}
	if again := p.build(w, s); again.ID != one.ID || len(p.phrases(fleet.PhaseBuild)) > 2 {
		t.Errorf("built again: %v", p.phrases(fleet.PhaseBuild))
	}
	p.write("a/src", "2", "a/new", "y")
	if err := os.Remove(filepath.Join(p.dir, "a", "gone")); err != nil {
		t.Fatal(err)
	}
	two := p.build(w, s)
	if two.ID == one.ID || !two.Dirty || strings.TrimSpace(p.content(two.Dir, "out/n")) != "2" {
		t.Errorf("not incremental: %+v, %s builds", two, p.content(two.Dir, "out/n"))
	}
	if p.content(two.Dir, "out/copy") != "2" || p.content(two.Dir, "gone") != "absent" || p.content(two.Dir, "new") != "y" {
		t.Error("the second release is wrong")
	}
	if p.content(one.Dir, "out/copy") != "1" {
		t.Error("the first release changed")
	}
	p.write("a/src", "1", "a/gone", "x")
	if err := os.Remove(filepath.Join(p.dir, "a", "new")); err != nil {
		t.Fatal(err)
	}
	if back := p.build(w, s); back.ID != one.ID {
		t.Errorf("the same content has another id: %s, %s", back.ID, one.ID)
	}
}

// What a build does to the files that it was given does not outlive it.
func TestBuildThatVandalises(t *testing.T) {
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a", `build: "cat dir/src; echo changed > dir/src; rm -rf keep; mkdir keep; rm -rf dir2; ln -s /tmp dir2; chmod +x other"`),
		"dir/src", "right", "keep", "k", "dir2/f", "f", "other", "o", "n", "1")
	w := p.open("repos: [./a]\n")
	s := p.load(w, false)["a"]
	p.build(w, s)
	p.write("a/n", "2")
	p.build(w, s)
	p.write("a/shoal.yaml", service("a", "build: echo done"))
	p.write("a/n", "3")
	r := p.build(w, p.load(w, false)["a"])
	for f, want := range map[string]string{"dir/src": "right", "keep": "k", "dir2/f": "f", "other": "o"} {
		if got := p.content(r.Dir, f); got != want {
			t.Errorf("%s is %q", f, got)
		}
	}
	if info, err := os.Stat(filepath.Join(r.Dir, "other")); err != nil || info.Mode()&0o100 != 0 {
		t.Errorf("other: %v %v", info.Mode(), err)
	}
	if p.content("/tmp", "f") == "f" {
		t.Error("a link of the build was followed out of the tree")
	}
}

// Links, executables, odd names, empty and large files arrive as they are.
func TestReleaseFiles(t *testing.T) {
	p := newPlace(t)
	large := strings.Repeat("0123456789abcdef", 1<<19)
	p.repo("a", "shoal.yaml", service("a", `build: "mkdir -p ro && touch ro/f && chmod 555 ro && ln -s $PWD/large absolute && mkfifo pipe"`), "large", large, "empty", "", "name with ü\nand more", "odd", "bin/tool", "#!/bin/sh\n", "target", "t")
	if err := errors.Join(os.Chmod(filepath.Join(p.dir, "a/bin/tool"), 0o755), os.Symlink("target", filepath.Join(p.dir, "a/link")), os.Symlink("nowhere", filepath.Join(p.dir, "a/dangling"))); err != nil {
		t.Fatal(err)
	}
	p.commit("a")
	w := p.open("repos: [./a]\n")
	r := p.build(w, p.load(w, false)["a"])
	if p.content(r.Dir, "large") != large || p.content(r.Dir, "name with ü\nand more") != "odd" || p.content(r.Dir, "empty") != "" {
		t.Error("a file is wrong")
	}
	for link, want := range map[string]string{"link": "target", "dangling": "nowhere", "absolute": filepath.Join(r.Dir, "large")} {
		if got, err := os.Readlink(filepath.Join(r.Dir, link)); err != nil || got != want {
			t.Errorf("%s points to %q: %v", link, got, err)
		}
	}
	if info, err := os.Stat(filepath.Join(r.Dir, "bin/tool")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("bin/tool: %v %v", info, err)
	}
	if _, err := os.Lstat(filepath.Join(r.Dir, "pipe")); err == nil {
		t.Error("a pipe was copied")
	}
	if info, err := os.Stat(filepath.Join(r.Dir, "ro")); err != nil || info.Mode().Perm() != 0o555 {
		t.Errorf("ro: %v %v", info, err)
	}
	p.t.Cleanup(func() { _ = os.Chmod(filepath.Join(r.Dir, "ro"), 0o755) })
	t.Cleanup(func() { unlock(filepath.Join(p.dir, ".cache")) })
}

// unlock makes a tree removable for the testing package.
func unlock(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o755)
		}
		return nil
	})
}

// A build that fails says what the compiler said, leaves no release, and touches none that is there.
func TestBuildFails(t *testing.T) {
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a", `build: "test -f ok || { echo main.go:3 undefined; exit 3; }"`), "ok", "")
	w := p.open("repos: [./a]\n")
	s := p.load(w, false)["a"]
	good := p.build(w, s)
	if err := os.Remove(filepath.Join(p.dir, "a/ok")); err != nil {
		t.Fatal(err)
	}
	_, err := w.Build(t.Context(), s)
	wants(t, err, "build of a: exit status 3", "main.go:3 undefined")
	var failed *workspace.BuildError
	if !errors.As(err, &failed) || !slices.Contains(failed.Output, "main.go:3 undefined") {
		t.Errorf("%#v", err)
	}
	entries, _ := os.ReadDir(filepath.Dir(good.Dir))
	if len(entries) != 2 { // the release, and the notes of who uses it
		t.Errorf("left behind: %v", entries)
	}
}

// In edit mode `dev`, and a service without `build`, run in the clone; a pin never does.
func TestRunsInClone(t *testing.T) {
	p := newPlace(t)
	p.repo("dev", "shoal.yaml", service("dev", "dev: npm run dev", "build: exit 1"), "f", "1")
	p.repo("plain", "shoal.yaml", service("plain"), ".gitignore", "node_modules\n.env\n", "f", "1")
	p.write("plain/node_modules/x", "")
	w := p.open(fmt.Sprintf("repos: [./dev, ./plain, {url: %q, manifest: pinned.yaml}]\n", p.url("plain")+"@main"))
	p.write("pinned.yaml", service("pinned"))
	s := p.load(w, false)
	dev, plain, pinned := p.build(w, s["dev"]), p.build(w, s["plain"]), p.build(w, s["pinned"])
	if dev.Dir != filepath.Join(p.dir, "dev") || plain.Dir != filepath.Join(p.dir, "plain") || strings.HasPrefix(pinned.Dir, filepath.Join(p.dir, "plain")) {
		t.Errorf("%s %s %s", dev.Dir, plain.Dir, pinned.Dir)
	}
	if s["dev"].Command() != "npm run dev" || s["plain"].Command() != "./plain" {
		t.Errorf("%s %s", s["dev"].Command(), s["plain"].Command())
	}
	p.write("dev/f", "2", "plain/f", "2")
	if again := p.build(w, s["dev"]); again.ID != dev.ID {
		t.Error("a change restarts what reloads by itself")
	}
	two := p.build(w, s["plain"])
	if two.ID == plain.ID || plain.Ignored != nil {
		t.Errorf("%+v %+v", plain, two)
	}
	p.write("plain/.env", "A=b")
	if three := p.build(w, s["plain"]); three.ID == two.ID {
		t.Error("an env file that is ignored and used makes no new release")
	}
	if p.content(pinned.Dir, "f") != "1" {
		t.Error("the pin has no files")
	}
}

// The workspace's own files, in a repository, are no part of it.
func TestWorkspaceInRepository(t *testing.T) {
	p := newPlace(t)
	p.repo(".", "shoal.yaml", service("a", "build: echo"))
	w := p.open("repos: [.]\n")
	s := p.load(w, false)["a"]
	one := p.build(w, s)
	p.write(".shoal/logs/a.log", "x", "shoal.lock", "")
	two := p.build(w, s)
	if one.ID != two.ID || two.Dirty || p.content(two.Dir, "shoal.work") != "absent" {
		t.Errorf("%+v %+v", one, two)
	}
}

func TestCollect(t *testing.T) {
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a", "build: echo"), "n", "0")
	w := p.open("repos: [./a]\n")
	s := p.load(w, false)["a"]
	var all []fleet.Release
	for i := range 7 {
		p.write("a/n", fmt.Sprint(i))
		r := p.build(w, s)
		old := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(r.Dir, old, old); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	other := p.config()
	other.Data = filepath.Join(p.dir, "other")
	p.write("other/VERSION", "1", ".shoal/VERSION", "1")
	w2, err := workspace.Open(other)
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range []struct {
		w   *workspace.Workspace
		ids []string
	}{{w, []string{all[0].ID, all[1].ID, all[2].ID, all[3].ID}}, {w2, []string{all[1].ID}}, {w, []string{all[0].ID}}} {
		if err := use.w.Collect(map[string][]string{"a": use.ids, "never-built": nil}); err != nil {
			t.Fatal(err)
		}
	}
	var left []int
	for i, r := range all {
		if _, err := os.Stat(r.Dir); err == nil {
			left = append(left, i)
		}
	}
	if !slices.Equal(left, []int{0, 1, 4, 5, 6}) {
		t.Errorf("left %v", left)
	}
}

// Builds of one service at a time, from many callers.
func TestBuildConcurrently(t *testing.T) {
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a", "build: mkdir lock && rmdir lock"))
	p.repo("b", "shoal.yaml", service("b", "build: mkdir lock && rmdir lock"))
	w := p.open("repos: [./a, ./b]\n")
	s := p.load(w, false)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			if _, err := w.Build(t.Context(), s[[]string{"a", "b"}[i%2]]); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}
