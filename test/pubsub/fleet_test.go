//go:build unix

package pubsub

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// world is a fleet that is up, for all tests of the package: each has topics of its own.
type world struct{ dir, shoal, host, nats, events string }

var up world

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ps") // short: sockets are in it
	if err != nil {
		panic(err)
	}
	up = world{dir: dir, shoal: filepath.Join(dir, "shoal")}
	code := 1
	if err := up.start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	out, err := up.run("down")
	if err != nil {
		fmt.Fprintln(os.Stderr, err, out)
		code = 1
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// start builds the binaries, and brings a fleet of one service up.
func (w *world) start() error {
	app := filepath.Join(w.dir, "application")
	for out, pkg := range map[string]string{w.shoal: "github.com/shoalrun/shoal/cmd/shoal", app: "./app"} {
		build := exec.Command("go", "build", "-o", out, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, text)
		}
	}
	_ = os.Chmod(w.dir, 0o755) // an application may be another user
	for name, text := range map[string]string{
		"shoal.work":     "fleet: shop\nrepos:\n  - ./app\n",
		"app/shoal.yaml": "service: app\nrun: " + app + "\npublishes: [pings]\nsubscribes: {pings: pull}\n",
	} {
		path := filepath.Join(w.dir, name)
		_ = os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "start"}} {
		if out, err := exec.Command("git", append([]string{"-C", filepath.Join(w.dir, "app")}, args...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w: %s", args, err, out)
		}
	}
	if out, err := w.run("up", "-d"); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return w.readEnv()
}

// readEnv takes what `shoal env` says, as a tool on this host would.
func (w *world) readEnv() error {
	out, err := w.run("env", "--json")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	var vars []struct{ Name, Value string }
	if err := json.Unmarshal([]byte(out), &vars); err != nil {
		return err
	}
	for _, v := range vars {
		if strings.HasPrefix(v.Name, "PUBSUB_") {
			_ = os.Setenv(v.Name, v.Value)
		}
		switch v.Name {
		case "NATS_URL":
			w.nats = v.Value
		case "EVENTS_URL":
			w.events = v.Value
		}
	}
	w.host = os.Getenv("PUBSUB_EMULATOR_HOST")
	if w.host == "" || os.Getenv("PUBSUB_PROJECT_ID") != "shop" {
		return fmt.Errorf("shoal env says no PUBSUB_EMULATOR_HOST, or another project: %s", out)
	}
	return nil
}

// run runs a verb.
func (w *world) run(args ...string) (string, error) {
	cmd := exec.Command(w.shoal, args...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "HOME="+w.dir, "XDG_RUNTIME_DIR="+filepath.Join(w.dir, "run"), "XDG_CACHE_HOME="+filepath.Join(w.dir, "cache"), "NO_COLOR=1")
	_ = os.MkdirAll(filepath.Join(w.dir, "run"), 0o700)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
	err := cmd.Run()
	return out.String(), err
}

// crash is a command that kills the hub as a fault would; its sibling starts it again.
func (w *world) crash() []string {
	return []string{"sh", "-c", `kill -9 $(cd '` + w.dir + `' && HOME='` + w.dir + `' XDG_RUNTIME_DIR='` + filepath.Join(w.dir, "run") +
		`' ./shoal status --json | tr -d ' \n' | sed 's/.*"hub":{[^}]*"pid":\([0-9]*\).*/\1/')`}
}

// patience is how long what must happen may take on a slow machine.
const patience = 60 * time.Second

func crash(t *testing.T) {
	t.Helper()
	args := up.crash()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("killing the hub: %v: %s", err, out)
	}
}
