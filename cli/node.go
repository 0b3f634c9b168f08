package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
)

// node runs the node of this machine. Beside a hub, `up` starts it; on another machine the operator does.
func (a *app) node() *cobra.Command {
	f := &processFlags{}
	var n NodeArgs
	cmd := &cobra.Command{
		Use: "node --join HOST:PORT --token TOKEN", Short: "Join this machine to a fleet, and run what is placed on it",
		Long: "Joins this machine to the fleet whose hub is at HOST:PORT, and runs services that are placed on it. " +
			"`shoal nodes token NAME` on the hub's machine prints the whole command. A machine that has joined needs neither flag: " +
			"`shoal node` takes it up again.\n\nIt runs until it is stopped; services run on under their shims, and the next `shoal node` takes them over.",
		Args: within(0, 0),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if a.data == "" {
			a.data = dataFolder // this machine's, whatever workspace is around
		}
		p, err := a.paths()
		if err != nil {
			return err
		}
		f.speaks = n.Join != "" || hasJoined(p)
		return a.process(cmd.Context(), api.Node, f, func(ctx context.Context, p ProcessArgs) error {
			if a.config.Node == nil {
				return errors.New("this binary has no node in it")
			}
			if f.speaks {
				p.Sibling = nil // the hub is not this machine's
			} else if p.Workspace == "" {
				return usagef("node wants --join HOST:PORT and --token TOKEN; `shoal nodes token NAME` on the hub's machine prints both. On one machine `shoal up` starts a node by itself")
			}
			n.ProcessArgs, n.Name, n.Gateway, n.Metrics, n.NATS, n.Pubsub = p, f.node, f.gateway, f.metrics, f.nats, f.pubsub
			return a.config.Node(ctx, n)
		})
	}
	flags := cmd.Flags()
	f.hidden(flags)
	_ = flags.MarkHidden("node")
	flags.StringVar(&n.Join, "join", "", "`HOST:PORT` where the fleet's hub awaits nodes")
	flags.StringVar(&n.Token, "token", "", "the one-time `TOKEN` that lets this machine join")
	flags.StringVar(&n.Peers, "peers", "", "`HOST:PORT` where this node awaits calls of others (default: port 7443 of the address by which it reaches the hub, or the next free one)")
	flags.StringVar(&n.Address, "address", "", "`HOST:PORT` where others find that, if it is another")
	return cmd
}

// hasJoined reports whether the machine is a node of a hub elsewhere.
func hasJoined(p api.Paths) bool {
	_, err := os.Stat(filepath.Join(p.NodeDir, "joined.json"))
	return err == nil
}
