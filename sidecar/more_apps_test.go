//go:build linux

package sidecar

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// quiet is run for what may fail.
func quiet(sc *Sidecar, command ...string) string {
	var out strings.Builder
	_, _ = sc.Exec(context.Background(), ExecSpec{Command: command, Stdout: &out, Stderr: &out})
	return strings.TrimSpace(out.String())
}

// addressIn returns the last word of a text as an address.
func addressIn(text string) (netip.Addr, bool) {
	words := strings.Fields(text)
	a, err := netip.ParseAddr(words[len(words)-1])
	return a, err == nil
}

// inMountNamespace runs a shell command as the host of a test, with mounts that nobody else sees.
func inMountNamespace(t *testing.T, command string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "mount --make-rprivate / && "+command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// hostStand is a stand for a host that is not the test's process.
func hostStand(dir string) (*Manager, *answering, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	p := newAnswering()
	m, err := New(configIn(dir, p, exe))
	return m, p, err
}

func hostSpec(dir, instance, command string, mode fleet.Mode) Spec {
	s := &stand{dir: dir}
	return Spec{Assignment: s.assignment(mode, instance, command)}
}

// resolvconfApp replaces resolv.conf by a rename while an application runs.
func resolvconfApp(dir string) int {
	m, _, err := hostStand(dir)
	if err != nil {
		return fail(err)
	}
	sc, err := m.Launch(context.Background(), hostSpec(dir, "orders-1", "sleep 60", fleet.Netns))
	if err != nil {
		return fail(err)
	}
	defer sc.Stop(context.Background(), 0)
	fmt.Println("before:", quiet(sc, "grep", "nameserver", "/etc/resolv.conf"))
	_ = os.WriteFile("/etc/resolv.conf.new", []byte("search corp.example\nnameserver 127.0.0.53\n"), 0o644)
	if err := os.Rename("/etc/resolv.conf.new", "/etc/resolv.conf"); err != nil {
		return fail(err)
	}
	fmt.Println("after:", quiet(sc, "grep", "nameserver", "/etc/resolv.conf"))
	fmt.Println(quiet(sc, "curl", "-sS", "--max-time", "20", "http://inventory/"))
	return 0
}

// resolversApp is a host with resolvers on file-system sockets.
func resolversApp(dir string) int {
	paths := []string{"/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"}
	for _, path := range paths {
		l, err := net.Listen("unix", path)
		if err != nil {
			return fail(err)
		}
		defer l.Close()
	}
	m, _, err := hostStand(dir)
	if err != nil {
		return fail(err)
	}
	sc, err := m.Launch(context.Background(), hostSpec(dir, "orders-1", "sleep 60", fleet.Netns))
	if err != nil {
		return fail(err)
	}
	defer sc.Stop(context.Background(), 0)
	exe, _ := os.Executable()
	fmt.Println(quiet(sc, append([]string{exe, "app", "connect"}, paths...)...))
	fmt.Println(quiet(sc, "cat", "/etc/nsswitch.conf"))
	return 0
}

// connectApp tries sockets of the file system.
func connectApp(paths []string) int {
	refused := 0
	for _, path := range paths {
		c, err := net.Dial("unix", path)
		if err != nil {
			refused++
			continue
		}
		_ = c.Close()
		fmt.Println(path, "answered")
	}
	fmt.Println(refused, "refused")
	return 0
}

// nodeApp is a node: DIR MODE OWNED COMMAND. It says which process it started and goes on until killed.
func nodeApp(args []string) int {
	exe, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	c := configIn(args[0], newAnswering(), exe)
	c.Owned = args[2] == "owned"
	m, err := New(c)
	if err != nil {
		return fail(err)
	}
	sc, err := m.Launch(context.Background(), hostSpec(args[0], "orders-1", strings.Join(args[3:], " "), fleet.Mode(args[1])))
	if err != nil {
		return fail(err)
	}
	fmt.Println(sc.PID())
	time.Sleep(time.Hour)
	return 0
}
