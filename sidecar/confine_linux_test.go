package sidecar

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/shoalrun/shoal/fleet"
)

// confinedApp tries what an application must not: DATA-FOLDER STATE-FOLDER NODE-PID SECRET-FILE.
func confinedApp(args []string) int {
	data, state, node, secret := args[0], args[1], args[2], args[3]
	pid, _ := strconv.Atoi(node)
	attempt := func(what string, err error) {
		if err == nil {
			fmt.Println("BREACH:", what)
		}
	}
	attempt("flush the rules", flushRules())
	attempt("take the mask away", unix.Unmount(data, unix.MNT_DETACH))
	attempt("take resolv.conf away", unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH))
	attempt("mount", unix.Mount("tmpfs", "/tmp", "tmpfs", 0, ""))
	attempt("signal the node", syscall.Kill(pid, 0))
	attempt("kill PID 1", unix.PtraceAttach(1))
	_, err := os.ReadFile(filepath.Join(data, "node", "key"))
	attempt("read a key", err)
	if b, err := os.ReadFile(secret); err == nil && len(b) > 0 {
		attempt("read a secret file", nil)
	}
	for fd := range 16 {
		_, err = os.Readlink(fmt.Sprintf("/proc/1/fd/%d", fd))
		attempt("see the shim's files", err)
	}
	_, err = os.ReadFile("/proc/1/environ")
	attempt("see the shim's environment", err)
	_, err = os.Stat("/proc/" + node + "/status")
	attempt("see the node", err)
	attempt("write resolv.conf", os.WriteFile("/etc/resolv.conf", nil, 0o644))
	attempt("keep a file beside the mask", os.WriteFile(filepath.Join(data, "x"), nil, 0o644))
	attempt("leave by setuid", func() error {
		if os.Getuid() == 0 {
			return syscall.Setuid(1)
		}
		return syscall.Setuid(0)
	}())
	attempt("change securebits", unix.Prctl(unix.PR_SET_SECUREBITS, 0, 0, 0, 0))
	attempt("mark a socket", markSocket())
	if err := os.WriteFile(filepath.Join(state, "mine"), []byte("kept"), 0o600); err != nil {
		fmt.Println("STATE:", err)
	}
	_ = syscall.Kill(1, syscall.SIGKILL)
	for sig := syscall.Signal(1); sig < 32; sig++ {
		_ = syscall.Kill(1, sig) // PID 1 goes on
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "NoNewPrivs") {
			fmt.Print(line)
		}
	}
	fmt.Println("uid", os.Getuid(), "pid 1 lives:", syscall.Kill(1, 0) == nil || os.Getuid() != 0)
	return 0
}

func flushRules() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.FlushRuleset()
	return c.Flush()
}

func markSocket() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0x5ea1)
}

// An application, as uid 0 or another, has no privilege in its namespace and gets none by exec, also of
// a second program, and in namespaces that it makes itself.
func TestApplicationIsConfined(t *testing.T) {
	needNetns(t)
	secret := filepath.Join(shortDir(t), ".env.shoal")
	write(t, secret, "KEY=top secret")
	s := newStand(t, func(c *Config) { c.Masks = append(c.Masks, secret, filepath.Join(c.RuntimeDir, "absent")) })
	data := filepath.Join(s.dir, "data")
	state := filepath.Join(data, "state", "orders")
	command := app(t, "confined", data, state, strconv.Itoa(os.Getpid()), secret)
	nested := "unshare -Ur --mount "
	if os.Getuid() == 0 {
		nested = "unshare -U --keep-caps --mount " // uid 0 may not be mapped without CAP_SETFCAP
	}
	for name, prefix := range map[string]string{
		"plain": "", "by a shell": "sh -c '' ; ", "in a user namespace of its own": nested,
	} {
		t.Run(name, func(t *testing.T) {
			got := s.output(fleet.Netns, "orders-1", prefix+command)
			if strings.Contains(name, "namespace") { // there it has privileges, over nothing of ours
				got = strings.ReplaceAll(got, "STATE", "") // its own /tmp hides it
				got = dropLines(got, "BREACH: mount", "BREACH: leave by setuid", "BREACH: change securebits", "BREACH: flush the rules")
			}
			if strings.Contains(got, "BREACH") || strings.Contains(got, "STATE") {
				t.Error(got)
			}
			if !strings.Contains(name, "namespace") && strings.Count(got, "0000000000000000") != 5 {
				t.Errorf("capabilities are left:\n%s", got)
			}
		})
	}
	if b, err := os.ReadFile(filepath.Join(state, "mine")); string(b) != "kept" {
		t.Errorf("the state folder has %q, %v", b, err)
	}
	if got := s.output(fleet.Netns, "orders-2", "stat -c %u .; id -u; ls -a "+data+" "+s.dir+"/run"); !strings.HasPrefix(got, fmt.Sprintf("%d\n%d\n", os.Getuid(), os.Getuid())) || strings.Contains(got, "node") || strings.Contains(got, "shim") {
		t.Errorf("the application sees %q", got)
	}
}

func dropLines(text string, these ...string) string {
	var kept []string
lines:
	for line := range strings.Lines(text) {
		for _, d := range these {
			if strings.TrimSpace(line) == d {
				continue lines
			}
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}

// After a flush of the rules in a user namespace of the application's own, its calls are still captured.
func TestRulesStandInNestedNamespaces(t *testing.T) {
	needNetns(t)
	got := newStand(t).output(fleet.Netns, "orders-1",
		"unshare -U --keep-caps "+app(t, "flush")+" ; curl -sS --max-time 20 http://inventory/")
	if !strings.Contains(got, "orders-1 calls ") {
		t.Errorf("got %q", got)
	}
}

// The folder that an application runs in stays visible beneath a mask.
func TestOwnFoldersStayVisible(t *testing.T) {
	needNetns(t)
	s := newStand(t)
	dir := filepath.Join(s.dir, "data", "deep", "release")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "server.js"), "code")
	sc := s.launch(fleet.Netns, "orders-1", "pwd; cat server.js; ls ..", func(sp *Spec) { sp.Assignment.Dir = dir })
	waitDone(t, sc)
	if got := strings.Join(sc.Tail(), "\n"); got != dir+"\ncoderelease" {
		t.Errorf("got %q", got)
	}
}
