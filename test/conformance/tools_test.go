//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// tools is where TestMain built h2spec and gRPC's client and server, at the versions of tools/go.mod.
var tools string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		panic(err)
	}
	tools = dir
	build("tools", "tool")
	build(".", "github.com/shoalrun/shoal/cmd/shoal")
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func build(dir, pkg string) {
	cmd := exec.Command("go", "build", "-o", tools+string(filepath.Separator), pkg)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("building %s: %v\n%s", pkg, err, out))
	}
}

// run runs one of the tools to its end.
func run(t testing.TB, tool string, args ...string) (out string, ok bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	text, err := exec.CommandContext(ctx, filepath.Join(tools, tool), args...).CombinedOutput()
	return string(text), err == nil
}

// allPaths are paths, and the real binary's listeners.
func manyPaths() []path { return allPaths() }

func allPaths() []path {
	return append(paths(), path{"binary", binary}, path{"binary's gateway", binaryEdge})
}

func binary(t testing.TB, a application) string     { return startFleet(t, a).listener }
func binaryEdge(t testing.TB, a application) string { return startFleet(t, a).gateway }

// running is a fleet under the real binary, in explicit mode.
type running struct{ listener, gateway string }

// startFleet starts the fleet of snapshot: caller writes down where target is for it, and sleeps.
func startFleet(t testing.TB, a application) running {
	dir, err := os.MkdirTemp("", "c") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file("shoal.work", fmt.Sprintf("fleet: test\nrepos: [./caller, ./target]\nexternals: {target: %q}\n", a.addr))
	file("caller/shoal.yaml", "service: caller\nrun: echo $TARGET_ADDR >$SHOAL_STATE/target; exec sleep 100000\ncalls: {target: {}}\n")
	file("target/shoal.yaml", fmt.Sprintf("service: target\nrun: exit 1\nlisten: {8080: %s}\nexpose: [{host: 127.0.0.1}, {host: target}]\n", a.protocol))
	for _, repo := range []string{"caller", "target"} {
		if out, err := exec.Command("git", "init", "-q", "-b", "main", filepath.Join(dir, repo)).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
	env := append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir+"/run", "XDG_CACHE_HOME="+dir+"/cache", "NO_COLOR=1")
	shoal := func(args ...string) string {
		cmd := exec.Command(filepath.Join(tools, "shoal"), args...)
		var errs bytes.Buffer
		cmd.Dir, cmd.Env, cmd.Stderr = dir, env, &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("shoal %s: %v\n%s%s", strings.Join(args, " "), err, out, errs.String())
		}
		return string(out)
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	shoal("up", "-d", "--mode", "explicit")
	t.Cleanup(func() { shoal("down") })
	r := running{gateway: gatewayOf(t, shoal("status", "--json"))}
	eventually(t, "the caller knows its listener", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, ".shoal/state/caller/target"))
		r.listener = strings.TrimSpace(string(b))
		return r.listener != ""
	})
	return r
}

func gatewayOf(t testing.TB, status string) string {
	var s fleet.Status
	if err := json.Unmarshal([]byte(status), &s); err != nil {
		t.Fatal(err)
	}
	return s.Gateway
}

// split returns the host and the port of an address.
func split(t testing.TB, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen: " + what)
		}
	}
}
