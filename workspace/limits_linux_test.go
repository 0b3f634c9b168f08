package workspace_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// inNamespace runs the calling test again as root of a user and mount namespace of its own, where limits can
// be lowered and a small disk mounted, and reports true there.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("TEST_IN_NAMESPACE") == t.Name() {
		return true
	}
	c := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), "TEST_IN_NAMESPACE="+t.Name())
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := c.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EACCES):
		t.Skipf("the kernel refuses user namespaces: %v", err)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// A full disk is said to be full, with what to do, and leaves no half of a release.
func TestFullDisk(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a", "build: echo"), "large", strings.Repeat("x", 700<<10))
	if err := os.Mkdir(filepath.Join(p.dir, ".cache"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", filepath.Join(p.dir, ".cache"), "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no disk can be mounted: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(p.dir, ".cache"), 0) })
	w := p.open("repos: [./a]\n")
	_, err := w.Build(t.Context(), p.load(w, false)["a"])
	wants(t, err, "the disk of", "is full", "XDG_CACHE_HOME")
	entries, _ := filepath.Glob(filepath.Join(p.dir, ".cache/releases/a/[^.]*"))
	if len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
	p.repo("remote", "shoal.yaml", service("b"), "large", strings.Repeat("abc", 700<<10))
	_, err = p.open("repos: ['"+p.url("remote")+"']\n").Load(t.Context(), false)
	wants(t, err, "the disk of", "is full")
}

// The limit of watches is named with the command that raises it.
func TestWatchLimit(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	p := newPlace(t)
	p.repo("a", "shoal.yaml", service("a", "build: echo"), "one/f", "", "two/f", "", "three/f", "")
	w := p.open("repos: [./a]\n")
	p.load(w, false)
	if err := os.WriteFile("/proc/sys/user/max_inotify_watches", []byte("2"), 0o644); err != nil {
		t.Skipf("the limit cannot be lowered: %v", err)
	}
	err := w.Watch(t.Context(), func(string) {})
	wants(t, err, "sudo sysctl fs.inotify.max_user_watches=524288")
	if err := os.WriteFile("/proc/sys/user/max_inotify_instances", []byte("0"), 0o644); err != nil {
		t.Skipf("the limit cannot be lowered: %v", err)
	}
	err = w.Watch(t.Context(), func(string) {})
	wants(t, err, "sudo sysctl fs.inotify.max_user_instances=1024")
}
