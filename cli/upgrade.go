package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
)

func (a *app) upgrade() *cobra.Command {
	return &cobra.Command{
		Use: "upgrade [EXECUTABLE]", Short: "Replace the running hub and node by this binary; services go on", Args: within(0, 1),
		Long: "Replace the running hub and node by this binary, or by another.\nApplications keep running, and no new call fails.",
		RunE: a.asking(func(ctx context.Context, c *api.Client, args []string) error {
			executable, err := executableOf(ctx, args)
			if err != nil {
				return err
			}
			running, err := c.Running(ctx)
			if err != nil {
				return err
			}
			if running.Owned {
				return errors.New("a fleet in the foreground ends with the `shoal up` that owns it: stop it with Ctrl-C and start it again; `shoal up -d` starts one that can be upgraded")
			}
			// The hub first: a node of either version finds it there, and calls do not need it.
			for _, p := range []api.Process{api.Hub, api.Node} {
				if err := a.replace(ctx, c, p, executable); err != nil {
					return fmt.Errorf("the %s was not replaced: %w", p, err)
				}
				fmt.Fprintf(a.out, "the %s runs %s\n", p, executable)
			}
			return nil
		}),
	}
}

// replace replaces one process and returns once its successor answers.
func (a *app) replace(ctx context.Context, c *api.Client, p api.Process, executable string) error {
	before, err := c.Info(ctx, p)
	if err != nil {
		return err
	}
	if err := c.Upgrade(ctx, p, executable, a.newPlain(a.out).progress); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	for {
		now, err := c.Info(ctx, p)
		if err == nil && !now.Started.Equal(before.Started) {
			return nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("no successor answers after %v; its log says why", answerPatience)
		}
	}
}

// executableOf returns the absolute path of the binary to run: the argument, else this one.
func executableOf(ctx context.Context, args []string) (string, error) {
	if len(args) == 0 {
		return os.Executable()
	}
	path, err := filepath.Abs(args[0])
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("the new binary cannot be used: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a file; name the new shoal binary", path)
	}
	return path, isShoal(ctx, path)
}

// isShoal runs a binary that is to take over, so that nothing ends for the sake of one that cannot.
func isShoal(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s does not run here: %w; name the new shoal binary", path, err)
	}
	if !strings.HasPrefix(string(out), "shoal ") {
		return fmt.Errorf("%s is no shoal binary: asked for its version it says %.40q", path, firstLine(string(out)))
	}
	return nil
}
