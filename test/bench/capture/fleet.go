package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// running is a fleet of two services, in the foreground: its processes are descendants of this one.
type running struct {
	dir, binary string
	up          *exec.Cmd
	said        *bytes.Buffer
	idle        float64 // processors that are in use while nobody asks
}

// patience bounds what is done with the fleet.
const patience = time.Minute

// startFleet returns once both services are healthy.
func startFleet(ctx context.Context, dir string) (*running, error) {
	binary, err := filepath.Abs("bin/shoal")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("bin/shoal is not built (make build): %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f := &running{dir: dir, binary: binary, said: &bytes.Buffer{}}
	if err := f.write(ctx, self); err != nil {
		return nil, err
	}
	f.up = f.command(ctx, "up", "--mode", "netns", "--gateway", harness.FreeAddress(), "--metrics", harness.FreeAddress())
	f.up.Stdout, f.up.Stderr = f.said, f.said
	if err := f.up.Start(); err != nil {
		return nil, err
	}
	if err := f.await(ctx); err != nil {
		f.stop()
		return nil, fmt.Errorf("no fleet with namespaces (see `shoal doctor`): %w\n%s", err, f.said)
	}
	return f, nil
}

// write writes the workspace: a service that is called, and one in whose namespace clients run.
func (f *running) write(ctx context.Context, self string) error {
	for name, text := range map[string]string{
		"server": "service: server\nrun: " + self + " -role server -address 127.0.0.1:8080\nlisten: {8080: http}\n",
		"client": "service: client\nrun: " + self + " -role waiter\ncalls: {server: {}}\n",
	} {
		repo := filepath.Join(f.dir, name)
		if err := os.MkdirAll(repo, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(repo, "shoal.yaml"), []byte(text), 0o644); err != nil {
			return err
		}
		if text, err := exec.CommandContext(ctx, "git", "init", "-q", repo).CombinedOutput(); err != nil {
			return fmt.Errorf("git init: %w\n%s", err, text)
		}
	}
	return os.WriteFile(filepath.Join(f.dir, "shoal.work"), []byte("fleet: bench\nrepos: [./server, ./client]\n"), 0o644)
}

// command is a verb of the binary's. Its end is asked for, so that the fleet ends in order.
func (f *running) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, f.binary, args...)
	c.Dir = f.dir
	c.Env = append(os.Environ(), "HOME="+f.dir, "XDG_RUNTIME_DIR="+f.dir, "XDG_CACHE_HOME="+filepath.Join(f.dir, "cache"), "NO_COLOR=1")
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = patience
	harness.EndWithParent(c)
	return c
}

// await waits until both services are healthy: first until there is a fleet to ask.
func (f *running) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		text, err := f.command(ctx, "wait", "server", "client", "--timeout", "30s").CombinedOutput()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w\n%s", err, text)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (f *running) stop() {
	_ = f.up.Process.Signal(os.Interrupt)
	_ = f.up.Wait() // it was measured; how it ends is of no interest
}
