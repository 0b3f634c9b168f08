package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/daemon"
	"github.com/shoalrun/shoal/fleet"
)

// processFlags are what `up` hands to hub and node on their command lines. Both take all of them, so
// that either can start the other with its own. A binary of another version reads them, too, at
// `upgrade`: names are added, never changed.
type processFlags struct {
	data, workspace, mode  string
	gateway, metrics, node string
	nats, pubsub           string
	engine                 string

	speaks bool // it logs to its standard error, for whoever started it to keep
}

// listeners adds the flags that `up` has in common with the hidden verbs.
func (f *processFlags) listeners(flags *pflag.FlagSet) {
	flags.StringVar(&f.gateway, "gateway", "", "`HOST:PORT` of the gateway (default: 127.0.0.1:8000, or the next free port)")
	flags.StringVar(&f.metrics, "metrics", "", "`HOST:PORT` of the metrics (default: 127.0.0.1:9464, or the next free port)")
	flags.StringVar(&f.nats, "nats-listen", "", "`HOST:PORT` where tools on this host reach the broker by NATS (default: 127.0.0.1:4222, or the next free port)")
	flags.StringVar(&f.engine, "nats", "", "`URL` of a NATS server or cluster in which the broker's messages are to lie (default: embedded); `engine` in shoal.work says more")
	flags.StringVar(&f.pubsub, "pubsub", "", "`HOST:PORT` where tools on this host reach the broker by the Pub/Sub API (default: 127.0.0.1:8085, or the next free port)")
	flags.StringVar(&f.mode, "mode", "", "join sidecars by netns or explicit (default: what this machine can do)")
}

func (f *processFlags) args(verb string) []string {
	args := []string{verb, "--data", f.data, "--workspace", f.workspace}
	for _, flag := range []struct{ name, value string }{
		{"--mode", f.mode}, {"--gateway", f.gateway}, {"--metrics", f.metrics}, {"--nats-listen", f.nats}, {"--nats", f.engine}, {"--pubsub", f.pubsub}, {"--node", f.node},
	} {
		if flag.value != "" {
			args = append(args, flag.name, flag.value)
		}
	}
	return args
}

func (f *processFlags) check() error {
	if m := fleet.Mode(f.mode); m != "" && m != fleet.Netns && m != fleet.Explicit {
		return usagef("there is no mode %q; netns and explicit are", f.mode)
	}
	return checkEngine(f.engine)
}

func (a *app) hub() *cobra.Command {
	f := &processFlags{}
	cmd := &cobra.Command{Use: "hub", Hidden: true, Args: within(0, 0)}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.process(cmd.Context(), api.Hub, f, func(ctx context.Context, p ProcessArgs) error {
			if a.config.Hub == nil {
				return errors.New("this binary has no hub in it")
			}
			return a.config.Hub(ctx, HubArgs{ProcessArgs: p, Node: f.node, NATS: f.engine})
		})
	}
	f.hidden(cmd.Flags())
	return cmd
}

func (f *processFlags) hidden(flags *pflag.FlagSet) {
	f.listeners(flags)
	flags.StringVar(&f.node, "node", fleet.Home, "this node's `NAME`")
}

// process runs hub or node: its places, its bounded log, and a context that ends when it is to stop.
func (a *app) process(ctx context.Context, which api.Process, f *processFlags, run func(context.Context, ProcessArgs) error) error {
	p, err := a.paths()
	if err != nil {
		return err
	}
	f.data, f.workspace = p.Data, a.workspace
	args, err := a.processArgs(which, f)
	if err != nil {
		return err
	}
	log := args.Paths.NodeLog
	if which == api.Hub {
		log = args.Paths.HubLog
	}
	if !isTerminal(a.err) && !f.speaks {
		bounded := newBoundedLog(log, logLimit)
		slog.SetDefault(slog.New(slog.NewTextHandler(bounded, nil)))
	}
	ctx, stop := stopped(ctx)
	defer stop()
	return run(ctx, args)
}

func (a *app) processArgs(which api.Process, f *processFlags) (ProcessArgs, error) {
	paths, err := api.Locate(f.data)
	if err != nil {
		return ProcessArgs{}, err
	}
	executable, err := os.Executable()
	if err != nil {
		return ProcessArgs{}, fmt.Errorf("the path of this binary: %w", err)
	}
	args := ProcessArgs{
		Version: a.config.Version, Executable: executable, Paths: paths, Workspace: f.workspace,
		Mode: fleet.Mode(f.mode), Owned: os.Getenv("SHOAL_OWNER") != "",
	}
	if !args.Owned {
		args.Sibling = func() error { return startDetached(executable, paths, sibling(which), f) }
	}
	return args, f.check()
}

func sibling(p api.Process) api.Process {
	if p == api.Hub {
		return api.Node
	}
	return api.Hub
}

// stopped returns a context that ends at TERM, at INT, and with the process's owner.
func stopped(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	owner := daemon.Owner()
	if owner == nil {
		return ctx, stop
	}
	go func() {
		daemon.WaitOwner(owner)
		stop()
	}()
	return ctx, stop
}

// startDetached starts hub or node in a session of its own, writing to its log. Where that ends before
// this process does, it leaves no zombie.
func startDetached(executable string, p api.Paths, which api.Process, f *processFlags) error {
	cmd, err := spawn(executable, p, which, f, nil)
	if err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

func spawn(executable string, p api.Paths, which api.Process, f *processFlags, owner *os.File) (*process, error) {
	log := p.NodeLog
	if which == api.Hub {
		log = p.HubLog
	}
	from := sizeOfFile(log)
	cmd, err := daemon.Spawn{Executable: executable, Args: f.args(string(which)), Log: log, Owner: owner}.Start()
	if err != nil {
		return nil, fmt.Errorf("the %s cannot be started: %w", which, err)
	}
	return &process{Cmd: cmd, which: which, log: log, from: from, ended: make(chan struct{})}, nil
}
