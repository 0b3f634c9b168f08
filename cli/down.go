package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
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
			info, err := c.Running(ctx)
			if errors.Is(err, api.ErrNotRunning) {
				info, err = a.takeUp(ctx, c, p, err)
			}
			if err != nil {
				return err
			}
			if err := c.Down(ctx, a.newPlain(a.out).progress); err != nil {
				return err
			}
			if err := gone(ctx, c, p); err != nil {
				return err
			}
			if err := p.Remove(); err != nil {
				return fmt.Errorf("everything is stopped, but the runtime folder is left: %w", err)
			}
			fmt.Fprintf(a.out, "%s is down\n", info.Fleet)
			return nil
		}),
	}
}

// takeUp starts a node where hub and node were both killed and instances run on under their shims, so
// that these can be stopped in order. Where there are none it returns notRunning.
func (a *app) takeUp(ctx context.Context, c *api.Client, p api.Paths, notRunning error) (api.Info, error) {
	left, err := filepath.Glob(filepath.Join(p.Shims, "*.sock"))
	file, ok, fileErr := a.workspaceFile()
	executable, exeErr := os.Executable()
	if err := errors.Join(err, fileErr, exeErr); err != nil || len(left) == 0 || !ok {
		return api.Info{}, errors.Join(notRunning, err)
	}
	node, err := spawn(executable, p, api.Node, &processFlags{data: p.Data, workspace: file}, nil)
	if err != nil {
		return api.Info{}, err
	}
	died := make(chan *process, 1)
	go node.await(died)
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	for {
		info, err := c.Info(ctx, api.Node)
		if err == nil {
			return info, nil
		}
		select {
		case <-died:
			return info, fmt.Errorf("what runs on cannot be stopped: %w", node.death())
		case <-ctx.Done():
			return info, err
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
