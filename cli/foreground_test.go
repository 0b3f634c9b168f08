//go:build unix

package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/api"
)

// foreground is a running `shoal up`, piped.
type foreground struct {
	*exec.Cmd
	dir   string
	paths api.Paths
	lines *bufio.Reader
	err   lockedBuffer
}

// lockedBuffer is what the process writes while the test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// folder makes a workspace in which the fakes do as the named files say.
func folder(t *testing.T, files ...string) (dir string, paths api.Paths) {
	t.Helper()
	run, err := os.MkdirTemp("", "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	t.Setenv("XDG_RUNTIME_DIR", run)
	dir = t.TempDir()
	for _, name := range append(files, "shoal.work") {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("fleet: shop\nrepos: []\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if paths, err = api.Locate(filepath.Join(dir, ".shoal")); err != nil {
		t.Fatal(err)
	}
	return dir, paths
}

// shoal returns a command that runs this test binary as `shoal`.
func shoal(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CLI_TEST_SHOAL=1", "TZ=UTC", "HOME="+dir, quickExit)
	return cmd
}

func startUp(t *testing.T, files ...string) *foreground {
	t.Helper()
	dir, paths := folder(t, files...)
	f := &foreground{Cmd: shoal(dir, "up"), dir: dir, paths: paths}
	out, err := f.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	f.lines = bufio.NewReader(out)
	f.Stderr = &f.err
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var pids []int
		c := api.Dial(paths)
		defer c.Close()
		for _, which := range []api.Process{api.Hub, api.Node} {
			if info, err := c.Info(context.Background(), which); err == nil {
				pids = append(pids, info.PID)
			}
		}
		f.Process.Kill()
		f.Wait()
		nothingLeft(t, pids...)
	})
	return f
}

// until reads lines until one has text in it.
func (f *foreground) until(t *testing.T, text string) {
	t.Helper()
	var all strings.Builder
	for {
		line, err := f.lines.ReadString('\n')
		all.WriteString(line)
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			t.Fatalf("%q never came: %v\n%s%s", text, err, all.String(), f.err.String())
		}
	}
}

// code waits for the end and returns the exit code.
func (f *foreground) code(t *testing.T) int {
	t.Helper()
	rest, err := io.ReadAll(f.lines)
	if err != nil {
		t.Log(err)
	}
	err = f.Wait()
	t.Logf("%s%s", rest, f.err.String())
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0
}

// pid asks a process for its id.
func (f *foreground) pid(t *testing.T, which api.Process) int {
	t.Helper()
	c := api.Dial(f.paths)
	defer c.Close()
	info, err := c.Info(t.Context(), which)
	if err != nil {
		t.Fatal(err)
	}
	return info.PID
}

// nothingLeft waits until none of the processes is there any more.
func nothingLeft(t *testing.T, pids ...int) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for _, pid := range pids {
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d is still there", pid)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func (f *foreground) both(t *testing.T) []int {
	t.Helper()
	return []int{f.pid(t, api.Hub), f.pid(t, api.Node)}
}

func TestCtrlCStopsInOrder(t *testing.T) {
	f := startUp(t)
	f.until(t, "shop is up: 1 service")
	pids := f.both(t)
	f.Process.Signal(os.Interrupt)
	f.until(t, "stopping; Ctrl-C again stops by force")
	f.until(t, "web          stop")
	if code := f.code(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	nothingLeft(t, pids...)
	if _, err := os.Stat(f.paths.Runtime); !os.IsNotExist(err) {
		t.Errorf("the runtime folder is left: %v", err)
	}
}

func TestDownFromElsewhereEndsUpWell(t *testing.T) {
	f := startUp(t)
	f.until(t, "shop is up")
	if out, err := shoal(f.dir, "down").CombinedOutput(); err != nil {
		t.Fatalf("down: %v\n%s", err, out)
	}
	if code := f.code(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestASecondUpSaysWhoRuns(t *testing.T) {
	f := startUp(t)
	f.until(t, "shop is up")
	out, err := shoal(f.dir, "up").CombinedOutput()
	want := fmt.Sprintf("shop runs already, by a `shoal up` in another terminal: its hub is process %d", f.pid(t, api.Hub))
	if err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%v\n%s\nwant %s", err, out, want)
	}
}

func TestTheDeathOfOneEndsAllAndIsNamed(t *testing.T) {
	for _, which := range []api.Process{api.Hub, api.Node} {
		t.Run(string(which), func(t *testing.T) {
			f := startUp(t)
			f.until(t, "shop is up")
			pids := f.both(t)
			kill(t, f.pid(t, which))
			if code := f.code(t); code != 1 {
				t.Errorf("exit code %d", code)
			}
			if want := fmt.Sprintf("the %s \\(pid \\d+\\) ended by itself: signal: killed", which); !regexp.MustCompile(want).MatchString(f.err.String()) {
				t.Errorf("it says\n%s\nwant %s", f.err.String(), want)
			}
			nothingLeft(t, pids...)
		})
	}
}

func TestNothingOutlivesAKilledUp(t *testing.T) {
	f := startUp(t)
	f.until(t, "shop is up")
	pids := f.both(t)
	f.Process.Kill()
	nothingLeft(t, pids...)
}

func TestAProcessThatCannotStartIsNamedWithItsWords(t *testing.T) {
	for _, args := range [][]string{{"up"}, {"up", "-d"}} {
		dir, _ := folder(t, "die-node")
		out, err := shoal(dir, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "the node (pid") || !strings.Contains(string(out), "it was asked to die") {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		shoal(dir, "down").Run()
	}
}

func TestAForegroundStaysForAChangeThatMends(t *testing.T) {
	f := startUp(t, "fail")
	f.until(t, "panic: no database")
	f.until(t, "waiting for a change that mends it")
	f.Process.Signal(syscall.SIGTERM)
	if code := f.code(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestAWorkspaceThatCannotBeReadEndsUp(t *testing.T) {
	f := startUp(t, "unreadable")
	if code := f.code(t); code != 1 || !strings.Contains(f.err.String(), "did you mean `run`?") {
		t.Errorf("exit code %d\n%s", code, f.err.String())
	}
}

func TestDetachedFailureShowsTheLastLines(t *testing.T) {
	dir, _ := folder(t, "fail")
	out, err := shoal(dir, "up", "-d").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "web: exited with code 3\n    panic: no database\n") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := shoal(dir, "wait").CombinedOutput(); err == nil || !strings.Contains(string(out), "web failed") {
		t.Errorf("wait: %v\n%s", err, out)
	}
	if out, err := shoal(dir, "down").CombinedOutput(); err != nil {
		t.Errorf("down: %v\n%s", err, out)
	}
}

func TestTestRunsACommandInAFreshFleet(t *testing.T) {
	dir, _ := folder(t)
	cmd := shoal(dir, "test", "--", "sh", "-c", `echo "$SHOAL_GATEWAY"; exit 7`)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 || out.String() != "http://127.0.0.1:8000\n" {
		t.Errorf("%v, %q\n%s", err, out.String(), errOut.String())
	}
	if _, err := os.Stat(filepath.Join(dir, ".shoal")); !os.IsNotExist(err) {
		t.Errorf("the workspace's own data folder was used: %v", err)
	}
	if out, err := shoal(dir, "status").CombinedOutput(); err == nil {
		t.Errorf("a fleet is left: %s", out)
	}
}

func TestSignalEndsEvenABusyTest(t *testing.T) {
	dir, _ := folder(t)
	cmd := shoal(dir, "test", "--", "sh", "-c", `echo "$$"; exec sleep 1000`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(os.Interrupt) // as from a terminal, where the command would have it, too
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err == nil {
		t.Error("exit code 0")
	}
	nothingLeft(t, pid)
}

func TestADeadNodeEndsATestWhoseHubHangs(t *testing.T) {
	dir, _ := folder(t, "die-node", "hang")
	out, err := shoal(dir, "test", "--", "true").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the node (pid") || !strings.Contains(string(out), "it was asked to die") {
		t.Errorf("%v\n%s", err, out)
	}
}
