// Command shoal is everything between the services of a team, in one binary. It hands the processes
// to the command line and is nothing else.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"github.com/shoalrun/shoal/cli"
	"github.com/shoalrun/shoal/hub"
	"github.com/shoalrun/shoal/node"
	"github.com/shoalrun/shoal/sidecar"
	"github.com/shoalrun/shoal/sidecar/shim"
)

// version is set by the linker (`-X main.version=…`); otherwise the module's own is told.
var version string

func main() {
	// A shim is as many processes as there are instances: it starts before anything else is made.
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(shim.Main())
	}
	os.Exit(cli.Main(cli.Config{Version: versionOf(), Hub: runHub, Node: runNode, Probe: probe}))
}

func versionOf() string {
	info, ok := debug.ReadBuildInfo()
	if version != "" || !ok {
		return version
	}
	return info.Main.Version
}

func runHub(ctx context.Context, a cli.HubArgs) error {
	return hub.Run(ctx, hub.Config{
		Node: a.Node, Version: a.Version, Executable: a.Executable, Paths: a.Paths, Workspace: a.Workspace, NATS: a.NATS,
		Owned: a.Owned, Sibling: a.Sibling,
	})
}

func runNode(ctx context.Context, a cli.NodeArgs) error {
	return node.Run(ctx, node.Config{
		Name: a.Name, Version: a.Version, Executable: a.Executable, Paths: a.Paths, Workspace: a.Workspace,
		Owned: a.Owned, Mode: a.Mode, Gateway: a.Gateway, Metrics: a.Metrics, NATS: a.NATS, Pubsub: a.Pubsub, Sibling: a.Sibling,
		Join: a.Join, Token: a.Token, Peers: a.Peers, Address: a.Address,
	})
}

// probe says what this machine's sidecars can do, for `doctor`.
func probe(ctx context.Context) []cli.Check {
	var checks []cli.Check
	for _, c := range sidecar.Probe(ctx).Checks {
		checks = append(checks, cli.Check(c))
	}
	return checks
}
