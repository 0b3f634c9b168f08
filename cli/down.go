package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
)

func (a *app) down() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Stop every service, and the fleet itself", Args: within(0, 0),
		RunE: a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
			info, err := c.Running(ctx)
			if err != nil {
				return err
			}
			if err := c.Down(ctx, a.newPlain(a.out).progress); err != nil {
				return err
			}
			if err := gone(ctx, c); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s is down\n", info.Fleet)
			return nil
		}),
	}
}

// gone waits until neither process answers any more.
func gone(ctx context.Context, c *api.Client) error {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	for {
		info, err := c.Running(ctx)
		if errors.Is(err, api.ErrNotRunning) {
			return nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("every service is stopped, but the %s (pid %d) does not end; kill it", info.Process, info.PID)
		}
	}
}
