//go:build linux

package sidecar

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalrun/shoal/sidecar/shim"
)

// The test binary is also the shim and every application that the tests start.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		if lie := os.Getenv("TEST_LIE"); lie != "" {
			os.Exit(lyingShim(lie))
		}
		os.Exit(shim.Main())
	}
	if len(os.Args) > 2 && os.Args[1] == "app" {
		os.Exit(runApp(os.Args[2], os.Args[3:]))
	}
	_ = os.Setenv("GORACE", quickExit)
	os.Exit(m.Run())
}

// quickExit spares the processes of a test with -race a second each.
const quickExit = "atexit_sleep_ms=0"

const ordinaryUID = 65534

// TestAsOrdinaryUser runs every other test again without root.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: all tests run as an ordinary user as it is")
	}
	dir, err := os.MkdirTemp("", "sidecar-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "sidecar.test")
	copyFile(t, bin, self(t))
	cmd := exec.Command(bin, "-test.v", "-test.timeout=5m", "-test.run", ordinaryPattern())
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinaryUID, Gid: ordinaryUID}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "---") || strings.Contains(line, "SKIP") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// ordinaryPattern passes a pattern for single tests on.
func ordinaryPattern() string {
	if p := os.Getenv("TEST_RUN"); p != "" {
		return p
	}
	return "."
}

func self(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func copyFile(t testing.TB, to, from string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// app returns the shell command of an application that is part of this binary.
func app(t testing.TB, name string, args ...string) string {
	t.Helper()
	return strings.Join(append([]string{self(t), "app", name}, args...), " ")
}

func fail(args ...any) int {
	fmt.Fprintln(os.Stderr, args...)
	return 1
}
