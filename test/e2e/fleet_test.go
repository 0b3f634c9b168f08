//go:build unix

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// The binaries under test, made by TestMain.
var shoal, app string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "shoal-e2e-")
	if err != nil {
		panic(err)
	}
	_ = os.Chmod(dir, 0o755) // an ordinary user runs what is in it
	shoal, app = filepath.Join(dir, "shoal"), filepath.Join(dir, "app")
	build(shoal, "github.com/shoalrun/shoal/cmd/shoal")
	build(app, "./app")
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func build(out, pkg string, flags ...string) {
	cmd := exec.Command("go", slices.Concat([]string{"build"}, flags, []string{"-o", out, pkg})...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v\n%s", err, text))
	}
}

// setting is one way to run the tests.
type setting struct {
	name string
	mode fleet.Mode
	uid  int
}

// nobody is an ordinary user.
const nobody = 65534

// settings are all the ways that this machine allows.
func settings() []setting {
	netns, explicit := setting{"netns", fleet.Netns, os.Getuid()}, setting{"explicit", fleet.Explicit, os.Getuid()}
	if os.Getuid() == 0 {
		return []setting{netns, explicit, {"netns-rootless", fleet.Netns, nobody}}
	}
	return []setting{netns, explicit}
}

// noNamespaces says why this machine has no namespaces for applications; empty where it has.
var noNamespaces = sync.OnceValue(func() string {
	out, _ := exec.Command(shoal, "doctor", "--data", os.TempDir()).Output()
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "ok") || strings.TrimSpace(line) == "" {
			continue
		}
		for _, step := range []string{"namespaces", "mounts", "addresses", "rules", "sockets", "application", "capture"} {
			if strings.Contains(line, step) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
})

// inEach runs a test in every setting: for what root and an ordinary user get by different ways.
func inEach(t *testing.T, test func(t *testing.T, s setting)) { inAll(t, settings(), test) }

// inBoth runs a test with namespaces, as an ordinary user, and without: for what depends on how an
// application is started, watched or ended.
func inBoth(t *testing.T, test func(t *testing.T, s setting)) {
	all := settings()
	inAll(t, all[len(all)-2:], test)
}

// once runs a test in one setting: for what is the same in all.
func once(t *testing.T, test func(t *testing.T, s setting)) { inAll(t, settings()[:1], test) }

func inAll(t *testing.T, all []setting, test func(t *testing.T, s setting)) {
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) { test(t, s) })
	}
}

// world is a workspace in a temporary folder, its fleet, and the user who runs it.
type world struct {
	*testing.T
	setting
	dir    string
	env    []string
	binary string // empty: shoal
}

// newWorld makes a git repository of each folder in files, and a shoal.work of them unless there is one.
func newWorld(t *testing.T, s setting, files map[string]string) *world {
	t.Helper()
	if why := noNamespaces(); s.mode == fleet.Netns && why != "" {
		t.Skip("the kernel refuses namespaces: " + why)
	}
	dir, err := os.MkdirTemp("", "w") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, setting: s, dir: dir}
	w.env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+filepath.Join(dir, "run"), "XDG_CACHE_HOME="+filepath.Join(dir, "cache"),
		"NO_COLOR=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	must(t, os.Mkdir(filepath.Join(dir, "run"), 0o700))
	repos := map[string]bool{}
	for name, text := range files {
		w.write(name, text)
		if repo, _, nested := strings.Cut(name, "/"); nested {
			repos[repo] = true
		}
	}
	work := "fleet: test\nrepos:\n"
	for _, repo := range slices.Sorted(maps.Keys(repos)) {
		w.git(repo, "init", "-q", "-b", "main")
		w.commit(repo)
		work += "  - ./" + repo + "\n"
	}
	if _, given := files["shoal.work"]; !given {
		w.write("shoal.work", work)
	}
	if s.uid != os.Getuid() {
		must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, s.uid, s.uid)
		}))
	}
	t.Cleanup(w.end)
	return w
}

// end stops the fleet and fails the test if anything of it lives on.
func (w *world) end() {
	if out, errs, code := w.try("down"); code != 0 && !strings.Contains(errs, "no fleet is running") {
		w.Errorf("down: exit code %d\n%s%s", code, out, errs)
	}
	w.showLogs()
	w.expectNoProcesses()
	_ = os.RemoveAll(w.dir)
}

// showLogs shows what hub and node said in a test that failed.
func (w *world) showLogs() {
	if !w.Failed() {
		return
	}
	for _, log := range []string{"hub.log", "node.log"} {
		if text, err := os.ReadFile(filepath.Join(w.dir, ".shoal", log)); err == nil {
			w.Logf("%s:\n%s", log, text)
		}
	}
}

// expectNoProcesses waits until no process has the world's folder in its command line, its
// environment or its working directory.
func (w *world) expectNoProcesses() {
	w.Helper()
	left := func() string { return strings.Join(w.processes(), "\n") }
	if !eventually(func() bool { return left() == "" }) {
		w.Errorf("processes are left behind:\n%s", left())
	}
}

func (w *world) processes() []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range dirs {
		cmdline, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(p, "environ"))
		cwd, _ := os.Readlink(filepath.Join(p, "cwd"))
		if len(cmdline) == 0 || !strings.Contains(string(cmdline)+string(environ)+cwd, w.dir) {
			continue
		}
		found = append(found, filepath.Base(p)+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
	}
	return found
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write writes a file of the workspace; APP stands for the test service's binary.
func (w *world) write(name, text string) {
	w.Helper()
	path := filepath.Join(w.dir, name)
	must(w, os.MkdirAll(filepath.Dir(path), 0o755))
	must(w, os.WriteFile(path, []byte(strings.ReplaceAll(text, "APP", app)), 0o644))
	if w.uid != os.Getuid() {
		must(w, os.Lchown(path, w.uid, w.uid))
	}
}

func (w *world) git(repo string, args ...string) string {
	w.Helper()
	args = append([]string{"-C", filepath.Join(w.dir, repo), "-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)
	cmd := exec.Command("git", args...)
	cmd.Env = w.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (w *world) commit(repo string) {
	w.git(repo, "add", "-A")
	w.git(repo, "commit", "-qm", "change")
}

// command prepares the binary to run as the world's user in its folder.
func (w *world) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, cmp.Or(w.binary, shoal), args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	if w.uid != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(w.uid), Gid: uint32(w.uid)}}
	}
	return cmd
}

// verbTimeout bounds one run of the binary.
const verbTimeout = 2 * time.Minute

// try runs a verb and returns what it printed and its exit code.
func (w *world) try(args ...string) (stdout, stderr string, code int) {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), verbTimeout)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := w.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	_ = cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// run runs a verb that must succeed and returns what it printed.
func (w *world) run(args ...string) string {
	w.Helper()
	out, errs, code := w.try(args...)
	if code != 0 {
		w.Fatalf("shoal %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// up starts the fleet in the background.
func (w *world) up(args ...string) string {
	w.Helper()
	return w.run(append([]string{"up", "-d", "--mode", string(w.mode)}, args...)...)
}

func (w *world) status() fleet.Status {
	w.Helper()
	var s fleet.Status
	must(w, json.Unmarshal([]byte(w.run("status", "--json")), &s))
	return s
}

func (w *world) service(name string) fleet.ServiceStatus {
	w.Helper()
	for _, s := range w.status().Services {
		if s.Name == name {
			return s
		}
	}
	w.Fatalf("status has no service %s", name)
	return fleet.ServiceStatus{}
}

// get calls an exposed service at the gateway.
func (w *world) get(service, path string) (status int, body string, header http.Header) {
	w.Helper()
	req, _ := http.NewRequest(http.MethodGet, "http://"+w.status().Gateway+path, nil)
	req.Host = service + ".localhost"
	resp, err := http.DefaultClient.Do(req)
	must(w, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(w, err)
	return resp.StatusCode, string(b), resp.Header
}

// expect calls an exposed service and wants 200 and a body that contains part.
func (w *world) expect(service, path, part string) {
	w.Helper()
	if status, body, _ := w.get(service, path); status != 200 || !strings.Contains(body, part) {
		w.Fatalf("GET %s%s: %d %q; want %q in it", service, path, status, body, part)
	}
}

// patience is how long what must happen may take on a slow machine.
const patience = 30 * time.Second

// eventually waits until ok.
func eventually(ok func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

func (w *world) eventually(what string, ok func() bool) {
	w.Helper()
	if !eventually(ok) {
		w.Fatalf("it did not happen: %s", what)
	}
}

// background is a verb that runs on while a test goes on.
type background struct {
	*exec.Cmd
	out  lockedBuffer
	done chan struct{}
}

func (w *world) start(args ...string) *background {
	w.Helper()
	b := &background{Cmd: w.command(context.Background(), args...), done: make(chan struct{})}
	b.Stdout, b.Stderr = &b.out, &b.out
	must(w, b.Start())
	go func() { _ = b.Wait(); close(b.done) }()
	w.Cleanup(func() { _ = b.Process.Kill(); <-b.done })
	return b
}

// pids are the processes of the fleet that have word as an argument.
func (w *world) pids(word string) []int {
	var pids []int
	for _, p := range w.processes() {
		fields := strings.Fields(p)
		if slices.Contains(fields[1:], word) {
			pid, _ := strconv.Atoi(fields[0])
			pids = append(pids, pid)
		}
	}
	return pids
}

// post calls an exposed service once: what is not a GET is never repeated.
func (w *world) post(service, path string) {
	w.Helper()
	req, _ := http.NewRequest(http.MethodPost, "http://"+w.status().Gateway+path, nil)
	req.Host = service + ".localhost"
	resp, err := http.DefaultClient.Do(req)
	must(w, err)
	_ = resp.Body.Close()
}

// kill kills hub or node as a fault would.
func (w *world) kill(process string) {
	w.Helper()
	var pids []int
	w.eventually("one "+process+" runs", func() bool { pids = w.pids(process); return len(pids) == 1 })
	must(w, syscall.Kill(pids[0], syscall.SIGKILL))
}
