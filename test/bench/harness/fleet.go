package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Fleet is one of the real binary, in the foreground: its processes are descendants of this one.
type Fleet struct {
	dir, binary string
	up          *exec.Cmd
	said        *bytes.Buffer
}

// anyPort is an address whose port the kernel chooses, when the fleet listens. `shoal env` and `shoal status` tell it.
const anyPort = "127.0.0.1:0"

// patience bounds what is done with a fleet.
const patience = time.Minute

// StartFleet starts services, each by its manifest, with further flags of `up`, and returns once all are healthy. It needs
// bin/shoal, and keeps its files in dir.
func StartFleet(ctx context.Context, dir string, manifests map[string]string, flags ...string) (*Fleet, error) {
	binary, err := filepath.Abs("bin/shoal")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("bin/shoal is not built (make build): %w", err)
	}
	f := &Fleet{dir: dir, binary: binary, said: &bytes.Buffer{}}
	services := slices.Sorted(maps.Keys(manifests))
	if err := f.write(ctx, services, manifests); err != nil {
		return nil, err
	}
	f.up = f.Command(ctx, append([]string{"up", "--gateway", anyPort, "--metrics", anyPort, "--pubsub", anyPort, "--nats-listen", anyPort}, flags...)...)
	f.up.Stdout, f.up.Stderr = f.said, f.said
	if err := f.up.Start(); err != nil {
		return nil, err
	}
	if err := f.await(ctx, services); err != nil {
		f.Stop()
		return nil, fmt.Errorf("no fleet (see `shoal doctor`): %w\n%s", err, f.said)
	}
	return f, nil
}

// write writes the workspace.
func (f *Fleet) write(ctx context.Context, services []string, manifests map[string]string) error {
	for _, name := range services {
		repo := filepath.Join(f.dir, name)
		if err := os.MkdirAll(repo, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(repo, "shoal.yaml"), []byte(manifests[name]), 0o644); err != nil {
			return err
		}
		if text, err := exec.CommandContext(ctx, "git", "init", "-q", repo).CombinedOutput(); err != nil {
			return fmt.Errorf("git init: %w\n%s", err, text)
		}
	}
	work := "fleet: bench\nrepos: [./" + strings.Join(services, ", ./") + "]\n"
	return os.WriteFile(filepath.Join(f.dir, "shoal.work"), []byte(work), 0o644)
}

// Command is a verb of the binary's. Its end is asked for, so that the fleet ends in order.
func (f *Fleet) Command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, f.binary, args...)
	c.Dir = f.dir
	c.Env = append(os.Environ(), "HOME="+f.dir, "XDG_RUNTIME_DIR="+f.dir, "XDG_CACHE_HOME="+filepath.Join(f.dir, "cache"), "NO_COLOR=1")
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = patience
	EndWithParent(c)
	return c
}

// await waits until all services are healthy: first until there is a fleet to ask.
func (f *Fleet) await(ctx context.Context, services []string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		text, err := f.Command(ctx, slices.Concat([]string{"wait"}, services, []string{"--timeout", "30s"})...).CombinedOutput()
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

// Env is what `shoal env` tells tools on this host.
func (f *Fleet) Env(ctx context.Context) (map[string]string, error) {
	text, err := f.Command(ctx, "env", "--json").Output()
	if err != nil {
		return nil, fmt.Errorf("shoal env: %w", err)
	}
	var vars []struct{ Name, Value string }
	if err := json.Unmarshal(text, &vars); err != nil {
		return nil, fmt.Errorf("shoal env: %w", err)
	}
	all := make(map[string]string)
	for _, v := range vars {
		all[v.Name] = v.Value
	}
	return all, nil
}

// Stop ends the fleet in order.
func (f *Fleet) Stop() {
	_ = f.up.Process.Signal(os.Interrupt)
	_ = f.up.Wait() // it was measured; how it ends is of no interest
}
