package workspace_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/workspace"
)

// place is a folder with repositories, a shoal.work and a cache.
type place struct {
	t   *testing.T
	dir string

	mu   sync.Mutex
	said []fleet.Progress
}

func newPlace(t *testing.T) *place {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	config := filepath.Join(t.TempDir(), "gitconfig")
	if err := os.WriteFile(config, []byte("[user]\nname = Test\nemail = test@example.com\n[init]\ndefaultBranch = main\n[protocol \"file\"]\nallow = always\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_CONFIG_GLOBAL", config)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &place{t: t, dir: dir}
}

// write writes files, given as name and content, below the place.
func (p *place) write(files ...string) {
	p.t.Helper()
	for i := 0; i < len(files); i += 2 {
		file := filepath.Join(p.dir, files[i])
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			p.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(files[i+1]), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *place) git(dir string, args ...string) string {
	p.t.Helper()
	c := exec.Command("git", args...)
	c.Dir = filepath.Join(p.dir, dir)
	out, err := c.CombinedOutput()
	if err != nil {
		p.t.Fatalf("git %v in %s: %v\n%s", args, dir, err, out)
	}
	return strings.TrimSpace(string(out))
}

// repo makes a git repository of files and commits them.
func (p *place) repo(dir string, files ...string) string {
	p.t.Helper()
	for i := 0; i < len(files); i += 2 {
		p.write(filepath.Join(dir, files[i]), files[i+1])
	}
	if err := os.MkdirAll(filepath.Join(p.dir, dir), 0o755); err != nil {
		p.t.Fatal(err)
	}
	p.git(dir, "init", "-q")
	return p.commit(dir)
}

func (p *place) commit(dir string) string {
	p.t.Helper()
	p.git(dir, "add", "-A")
	p.git(dir, "commit", "-q", "--allow-empty", "-m", "change")
	return p.git(dir, "rev-parse", "HEAD")
}

func (p *place) url(dir string) string {
	return "file://" + filepath.ToSlash(filepath.Join(p.dir, dir))
}

func (p *place) config() workspace.Config {
	return workspace.Config{
		File:  filepath.Join(p.dir, "shoal.work"),
		Cache: filepath.Join(p.dir, ".cache"),
		Run:   shell,
		Progress: func(f fleet.Progress) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.said = append(p.said, f)
		},
	}
}

// shell is the Run seam with a real shell.
func shell(ctx context.Context, c workspace.Command) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", c.Shell)
	cmd.Dir, cmd.Env = c.Dir, c.Env
	out, err := cmd.CombinedOutput()
	for line := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n") {
		c.Output(line)
	}
	return err
}

func (p *place) open(work string) *workspace.Workspace {
	p.t.Helper()
	p.write("shoal.work", work)
	w, err := workspace.Open(p.config())
	if err != nil {
		p.t.Fatal(err)
	}
	return w
}

func (p *place) load(w *workspace.Workspace, update bool) map[string]*workspace.Service {
	p.t.Helper()
	services, err := w.Load(p.t.Context(), update)
	if err != nil {
		p.t.Fatal(err)
	}
	byName := map[string]*workspace.Service{}
	for _, s := range services {
		byName[s.Manifest.Service] = s
	}
	return byName
}

// phrases returns what progress said in a phase.
func (p *place) phrases(phase fleet.Phase) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, s := range p.said {
		if s.Phase == phase {
			all = append(all, s.Text)
		}
	}
	return all
}

func wants(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; wanted %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error lacks %q:\n%v", w, err)
		}
	}
}

func service(name string, more ...string) string {
	return fmt.Sprintf("service: %s\nrun: ./%s\n%s", name, name, strings.Join(append(more, ""), "\n"))
}

func TestFindAndDefault(t *testing.T) {
	p := newPlace(t)
	if _, ok := workspace.Find(p.dir); ok {
		t.Skip("a folder above the temporary one has a shoal.work")
	}
	p.write("orders/shoal.yaml", service("orders"), "web/shoal.yaml", service("web"), "notes/readme.md", "", "notes/with space/readme.md", "")
	file, err := workspace.Default(p.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(file)
	for _, want := range []string{"- ./orders\n", "- ./web\n", "fleet: "} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	if found, ok := workspace.Find(filepath.Join(p.dir, "orders")); !ok || found != file {
		t.Errorf("found %q", found)
	}
	_, err = workspace.Default(p.dir, nil)
	wants(t, err, "never overwritten")
	_, err = workspace.Default(filepath.Join(p.dir, "notes"), nil)
	wants(t, err, "shoal init")
	_, err = workspace.Default(filepath.Join(p.dir, "notes"), []string{"./gone"})
	wants(t, err, "./gone is not there")
	if _, err := workspace.Default(filepath.Join(p.dir, "notes"), []string{"../orders", "https://git.example.com/x.git@v1", "./with space"}); err != nil {
		t.Error(err)
	}
}

func TestIsRepository(t *testing.T) {
	for arg, want := range map[string]bool{".": true, "./a": true, "a/b": true, "git@host:x.git": true, "https://h/x": true, "orders": false} {
		if workspace.IsRepository(arg) != want {
			t.Errorf("%s: %v", arg, !want)
		}
	}
}

// A clone that is edited, an external with and without a manifest, a manifest outside its repository, bindings,
// counts and labels.
func TestLoadLocal(t *testing.T) {
	p := newPlace(t)
	commit := p.repo("orders", "shoal.yaml", service("orders", "needs: {db: {tcp: 5432}, cache: {tcp: 6379}}", "calls: [search]", "instances: 2"))
	p.git("orders", "remote", "add", "origin", "https://user:secret@Git.example.com/orders.git")
	p.repo("legacy", "index.html", "")
	p.repo("ide", "shoal.yaml", service("ide"))
	p.write("manifests/legacy.yaml", service("legacy", "listen: {80: http}"), "orders/new.txt", "x")
	w := p.open(`
repos: [./orders, {path: ./legacy, manifest: manifests/legacy.yaml}, ./ide]
externals: {search: "localhost:9200", ide: {address: "localhost:3000", protocol: grpc}}
bind: {orders.db: "localhost:5433"}
instances: {orders: 3}
`)
	got := p.load(w, false)
	o := got["orders"]
	if o.Origin != fleet.Edit || o.Repository != "https://git.example.com/orders" || o.Commit != commit || !o.Dirty || o.Source != "./orders" || o.Manifest.Instances != 3 {
		t.Errorf("orders: %+v", o)
	}
	if o.Manifest.File != "orders/shoal.yaml" || o.Manifest.Needs[1].Bound != "localhost:5433" || o.Manifest.Needs[0].Bound != "" {
		t.Errorf("orders: %+v", o.Manifest)
	}
	if got["legacy"].Manifest.File != "manifests/legacy.yaml" || got["legacy"].Dirty {
		t.Errorf("legacy: %+v", got["legacy"])
	}
	if s := got["search"]; s.Origin != fleet.External || s.External != "localhost:9200" || s.Manifest.Ports[0].Number != 9200 {
		t.Errorf("search: %+v", s)
	}
	if s := got["ide"]; s.Origin != fleet.External || s.Manifest.Ports[0].Protocol != fleet.GRPC {
		t.Errorf("ide: %+v", s)
	}
	warned := strings.Join(p.phrases(fleet.PhaseWarn), "\n")
	if !strings.Contains(warned, `bind: {orders.cache: "localhost:6379"}`) || strings.Contains(warned, "orders.db") {
		t.Errorf("warnings: %s", warned)
	}
	if w.Settings().Fleet == "" {
		t.Error("the fleet has no name")
	}
}

// Every kind of broken repository is said at once, at its line of shoal.work or in its manifest.
func TestLoadErrors(t *testing.T) {
	p := newPlace(t)
	p.repo("bare", "readme", "")
	p.repo("bad", "shoal.yaml", "service: Bad\nrn: x\n")
	p.repo("pins", "shoal.yaml", service("pins"))
	p.git("pins", "tag", "v1.4")
	p.repo("none", "readme", "")
	p.write("plain/shoal.yaml", service("plain"), "file", "")
	w := p.open(fmt.Sprintf(`
repos:
  - ./missing
  - ./plain
  - ./bare
  - ./bad
  - ./file
  - {path: ./bare, manifest: gone.yaml}
  - file:///nowhere/at/all.git@v1
  - http://user:hunter2@127.0.0.1:1/x.git
  - %[1]s@v1.5
  - %[2]s
`, p.url("pins"), p.url("none")))
	_, err := w.Load(t.Context(), false)
	wants(t, err,
		"shoal.work:3:5: the repository ./missing is not there", "shoal.work:4:5: ./plain is not a git repository; run `git init`",
		"shoal.work:5:5: ./bare has no shoal.yaml; run `shoal init` in", "bad/shoal.yaml:2:1: unknown key `rn`; did you mean `run`?",
		"shoal.work:7:5: ./file is no folder", "shoal.work:8:6: the manifest gone.yaml is not there", "shoal.work:9:5: git cannot reach file:///nowhere/at/all.git@v1",
		"shoal.work:10:5: git cannot reach http://127.0.0.1:1/x.git", "shoal.work:11:5: the pin v1.5", "did you mean v1.4?", "has no shoal.yaml at")
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a password is in the error: %v", err)
	}
	if strings.Contains(strings.Join(p.phrases(fleet.PhaseResolve), " "), "hunter2") {
		t.Error("a password is in the progress")
	}
}

func TestLoadChecksFleet(t *testing.T) {
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("orders", "calls: [inventroy]"))
	p.repo("b", "shoal.yaml", service("orders"))
	p.repo("inventory", "shoal.yaml", service("inventory", "listen: {80: http}"))
	w := p.open("repos: [./a, ./b, ./inventory]\nbind: {x.db: \"localhost:1\"}\n")
	_, err := w.Load(t.Context(), false)
	wants(t, err, "is there twice: in a/shoal.yaml and in b/shoal.yaml", "did you mean `inventory`?", "shoal.work:2:8: `x` is no service")
}

// A pin is locked at its first commit, works offline from the cache, and moves with update only.
func TestPins(t *testing.T) {
	p := newPlace(t)
	first := p.repo("remote", "shoal.yaml", service("inventory"), "v", "1")
	p.git("remote", "tag", "v1")
	p.git("remote", "branch", "feature")
	work := fmt.Sprintf("repos:\n  - %s@main\n", p.url("remote"))
	w := p.open(work)
	s := p.load(w, false)["inventory"]
	if s.Commit != first || s.Origin != fleet.Pin || s.Dirty || s.ManifestPath != "" {
		t.Errorf("%+v", s)
	}
	p.write("remote/v", "2")
	second := p.commit("remote")
	if err := os.Rename(filepath.Join(p.dir, "remote"), filepath.Join(p.dir, "away")); err != nil {
		t.Fatal(err)
	}
	if s := p.load(p.open(work), false)["inventory"]; s.Commit != first {
		t.Errorf("offline: %s", s.Commit)
	}
	if err := os.Rename(filepath.Join(p.dir, "away"), filepath.Join(p.dir, "remote")); err != nil {
		t.Fatal(err)
	}
	if s := p.load(p.open(work), true)["inventory"]; s.Commit != second {
		t.Errorf("updated: %s", s.Commit)
	}
	for pin, want := range map[string]string{"@v1": first, "@feature": first, "@" + first: first, "@" + second[:10]: second, "": second} {
		if s := p.load(p.open(fmt.Sprintf("repos: [%q]\n", p.url("remote")+pin)), false)["inventory"]; s.Commit != want {
			t.Errorf("pin %q: %s, want %s", pin, s.Commit, want)
		}
	}
	lock, err := os.ReadFile(filepath.Join(p.dir, "shoal.lock"))
	if err != nil || strings.Count(string(lock), "file://") != 1 {
		t.Errorf("the lock keeps what is gone: %s %v", lock, err)
	}
}

// The lock is honoured on another machine, whose cache is empty, and a lock that is damaged is refused.
func TestLockOnAnotherMachine(t *testing.T) {
	p := newPlace(t)
	first := p.repo("remote", "shoal.yaml", service("inventory"))
	work := fmt.Sprintf("repos:\n  - %s@main\n", p.url("remote"))
	p.load(p.open(work), false)
	p.write("remote/v", "2")
	p.commit("remote")
	if err := os.RemoveAll(filepath.Join(p.dir, ".cache")); err != nil {
		t.Fatal(err)
	}
	if s := p.load(p.open(work), false)["inventory"]; s.Commit != first {
		t.Errorf("locked %s, got %s", first, s.Commit)
	}
	p.write("shoal.lock", "what is this\n")
	_, err := p.open(work).Load(t.Context(), false)
	wants(t, err, "shoal.lock:1", "remove it")
}

// A remote over git's own protocol.
func TestGitDaemon(t *testing.T) {
	p := newPlace(t)
	p.repo("remote", "shoal.yaml", service("inventory"))
	url := daemon(t, p)
	if s := p.load(p.open(fmt.Sprintf("repos: ['%s/remote@main']\n", url)), false)["inventory"]; s.Commit == "" {
		t.Errorf("%+v", s)
	}
}

// Submodules are part of a pin and of a clone.
func TestSubmodules(t *testing.T) {
	p := newPlace(t)
	p.repo("lib", "lib.txt", "lib")
	p.repo("main", "shoal.yaml", service("app", "build: cat sub/lib.txt > out"))
	p.git("main", "submodule", "--quiet", "add", p.url("lib"), "sub")
	p.commit("main")
	for _, repo := range []string{"./main", p.url("main")} {
		w := p.open(fmt.Sprintf("repos: [%q]\n", repo))
		r := p.build(w, p.load(w, false)["app"])
		if got, err := os.ReadFile(filepath.Join(r.Dir, "out")); string(got) != "lib" {
			t.Errorf("%s: %q %v", repo, got, err)
		}
	}
}

func TestSelect(t *testing.T) {
	p := newPlace(t)
	p.repo("web", "shoal.yaml", service("web", "calls: [orders]"))
	p.repo("orders", "shoal.yaml", service("orders", "listen: {80: http}"))
	p.repo("other", "shoal.yaml", service("other"))
	w := p.open("repos: [./web, ./orders, ./other]\n")
	services, err := w.Load(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"web"}, {filepath.Join(p.dir, "web")}, {"./web"}} {
		if got, err := w.Select(services, args); err != nil || !slices.Equal(got, []string{"orders", "web"}) {
			t.Errorf("%v: %v %v", args, got, err)
		}
	}
	_, err = w.Select(services, []string{"wbe"})
	wants(t, err, "did you mean web?")
	_, err = w.Select(services, []string{"./x"})
	wants(t, err, "add it to `repos`")
	if got, _ := w.Select(services, nil); len(got) != 3 {
		t.Errorf("all: %v", got)
	}
}

func TestOpenErrors(t *testing.T) {
	p := newPlace(t)
	_, err := workspace.Open(p.config())
	wants(t, err, "shoal up")
	p.write("shoal.work", "repo: [./x]\n")
	_, err = workspace.Open(p.config())
	wants(t, err, "shoal.work:1:1: unknown key `repo`; did you mean `repos`?")
}

// A fleet file becomes a shoal.work: what has no pin is cloned, what has one stays, comments stay.
func TestClone(t *testing.T) {
	p := newPlace(t)
	p.repo("remotes/orders", "shoal.yaml", service("orders"))
	p.repo("remotes/inventory", "shoal.yaml", service("inventory"))
	p.repo("fleet", "manifests/x.yaml", service("x"))
	p.write("fleet/shop.work", fmt.Sprintf("# our shop\nfleet: shop\nrepos:\n  - %s   # the heart\n  - {url: \"%s@main\", manifest: manifests/x.yaml}\n", p.url("remotes/orders"), p.url("remotes/inventory")))
	dir := filepath.Join(p.dir, "here")
	file, err := workspace.Clone(t.Context(), filepath.Join(p.dir, "fleet/shop.work"), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(file)
	want := fmt.Sprintf("# our shop\nfleet: shop\nrepos:\n  - ./orders   # the heart\n  - {url: \"%s@main\", manifest: ../fleet/manifests/x.yaml}\n", p.url("remotes/inventory"))
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	w, err := workspace.Open(workspace.Config{File: file, Cache: filepath.Join(p.dir, ".cache")})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.load(w, false); got["orders"].Origin != fleet.Edit || got["x"].Origin != fleet.Pin {
		t.Errorf("%+v", got)
	}
	_, err = workspace.Clone(t.Context(), filepath.Join(p.dir, "fleet/shop.work"), dir, nil)
	wants(t, err, "never overwritten")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err = workspace.Clone(t.Context(), filepath.Join(p.dir, "fleet/shop.work"), dir, nil); err != nil {
		t.Errorf("with the clones there: %v", err)
	}
}

func TestLoadCancelled(t *testing.T) {
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a"))
	w := p.open("repos: [./a]\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Load(ctx, false); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
