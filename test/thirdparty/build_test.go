package thirdparty

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// program is a stranger's command at a version.
type program struct {
	name, pkg, version string
}

var (
	podinfo = program{"podinfo", "github.com/stefanprodan/podinfo/cmd/podinfo", "v1.8.1-0.20250910200901-e86405a8674e"}
	hotrod  = program{"hotrod", "github.com/jaegertracing/jaeger/examples/hotrod", "v1.76.0"}
	heyLoad = program{"hey", "github.com/rakyll/hey", "v0.1.5"}
)

// build returns the path of the program's binary. It is made in a module of its own, with what
// the Go module proxy has, and kept in the user's cache: the second time takes no time.
func (p program) build(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "shoal-thirdparty", p.name+"-"+p.version+"-"+runtime.Version())
	binary := filepath.Join(dir, p.name+exe())
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "build-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	p.makeIn(t, work)
	os.RemoveAll(dir)
	if err := os.Rename(work, dir); err != nil {
		if _, err := os.Stat(binary); err != nil { // unless another run was quicker
			t.Fatal(err)
		}
	}
	return binary
}

func (p program) makeIn(t *testing.T, dir string) {
	t.Helper()
	run(t, dir, nil, "go", "mod", "init", "example.com/"+p.name)
	if out, err := try(dir, nil, "go", "get", p.pkg+"@"+p.version); err != nil {
		missing(t, "%s cannot be had from the Go module proxy: %v\n%s", p.pkg, err, out)
	}
	run(t, dir, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-o", p.name+exe(), p.pkg)
}

func exe() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// missing skips, or fails where the environment promises that nothing is missing.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("SHOAL_SKIPS") == "fail" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// run runs a command that must succeed and returns what it printed.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	out, err := try(dir, env, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return out
}

// patience bounds one command: a first build on a small machine takes minutes.
const patience = 15 * time.Minute

func try(dir string, env []string, name string, args ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
	err := cmd.Run()
	return out.String(), err
}
