package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/daemon"
)

func (a *app) down() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Stop every service, and the fleet itself", Args: within(0, 0),
		RunE: a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
			p, err := a.paths()
			if err != nil {
				return err
			}
			name, err := a.stopAll(ctx, c, p)
			if err != nil {
				return err
			}
			if err := gone(ctx, c, p); err != nil {
				return err
			}
			if err := p.Remove(); err != nil {
				return fmt.Errorf("everything is stopped, but the runtime folder is left: %w", err)
			}
			fmt.Fprintf(a.out, "%s is down\n", name)
			return nil
		}),
	}
}

// stopAll stops the fleet, by whichever process answers. Those that die before they are done, and what
// runs on without them, it ends itself.
func (a *app) stopAll(ctx context.Context, c *api.Client, p api.Paths) (fleet string, err error) {
	info, err := c.Running(ctx)
	if err == nil {
		err = c.Down(ctx, a.newPlain(a.out).progress)
	}
	if !errors.Is(err, api.ErrNotRunning) {
		return info.Fleet, err
	}
	swept, err := a.sweep(ctx, c, p)
	if err == nil && swept == "" && info.Fleet == "" {
		return "", api.ErrNotRunning
	}
	return cmp.Or(info.Fleet, swept), err
}

// sweep ends what is left where neither hub nor node answers: one of them that is just starting, and
// instances that run on under their shims. It returns the fleet's name where there was anything.
func (a *app) sweep(ctx context.Context, c *api.Client, p api.Paths) (fleet string, err error) {
	if err := p.Forget(); err != nil {
		return "", err
	}
	for _, which := range []api.Process{api.Hub, api.Node} {
		if _, held := daemon.Locked(lockOf(p, which)); !held {
			continue
		}
		fleet = "the fleet"
		if err := daemon.End(lockOf(p, which)); err != nil {
			return "", err
		}
	}
	left, err := filepath.Glob(filepath.Join(p.Shims, "*.sock"))
	if err != nil || len(left) == 0 {
		return fleet, err
	}
	return a.stopShims(ctx, c, p)
}

// stopShims starts a node that takes over the instances which were left, so that it can stop them in
// order. It owns that node, which ends with it.
func (a *app) stopShims(ctx context.Context, c *api.Client, p api.Paths) (fleet string, err error) {
	file, ok, err := a.workspaceFile()
	if err != nil {
		return "", err
	}
	if !ok {
		return "", fmt.Errorf("instances run on, and no shoal.work is found here: name it with --workspace; they are in %s", p.Shims)
	}
	o, err := startOwned(p, &processFlags{data: p.Data, workspace: file}, api.Node)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, o.stop()) }()
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	for {
		info, err := c.Info(ctx, api.Node)
		if err == nil {
			return info.Fleet, c.Down(context.WithoutCancel(ctx), a.newPlain(a.out).progress)
		}
		select {
		case node := <-o.died:
			return "", fmt.Errorf("what runs on cannot be stopped: %w", node.death())
		case <-ctx.Done():
			return "", err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// gone waits until neither process answers, and neither holds its lock: the next `up` needs it.
func gone(ctx context.Context, c *api.Client, p api.Paths) error {
	ctx, stop := context.WithTimeout(ctx, endPatience)
	defer stop()
	for {
		info, err := c.Running(ctx)
		pid, held := holder(p)
		if errors.Is(err, api.ErrNotRunning) && !held {
			return nil
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			return fmt.Errorf("every service is stopped, but process %d does not end; kill it", cmp.Or(pid, info.PID))
		}
	}
}

// holder returns the process that holds the lock of hub or node.
func holder(p api.Paths) (pid int, held bool) {
	for _, which := range []api.Process{api.Hub, api.Node} {
		if pid, held := daemon.Locked(lockOf(p, which)); held {
			return pid, true
		}
	}
	return 0, false
}

// held reports whether some process is hub or node, whether it answers yet or not.
func held(p api.Paths, which api.Process) bool {
	_, held := daemon.Locked(lockOf(p, which))
	return held
}

func lockOf(p api.Paths, which api.Process) string {
	if which == api.Hub {
		return filepath.Join(p.HubDir, "lock")
	}
	return filepath.Join(p.NodeDir, "lock")
}
