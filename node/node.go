// Package node assembles the process that runs instances and carries every byte of the data path.
//
// It joins the rooms of all three walks on one machine: sidecar captures what an application
// sends, proxy carries it, gateway lets the world in, deploy/process supervises, and the link takes
// snapshots and commands from the hub. It never speaks NATS, and it works on with its last snapshot
// and its last assignments while the hub is gone.
//
// [Run] is the whole interface.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/control"
	"github.com/shoalrun/shoal/daemon"
	"github.com/shoalrun/shoal/deploy/process"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/gateway"
	"github.com/shoalrun/shoal/identity"
	"github.com/shoalrun/shoal/manifest"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/observe/export"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/sidecar"
	"github.com/shoalrun/shoal/workspace"
)

// Config of a node. All fields but those that say otherwise are required.
type Config struct {
	Name       string // of the node; `local` on a machine of its own
	Version    string // of this binary
	Executable string // absolute path of this binary
	Paths      api.Paths
	Workspace  string // absolute path of shoal.work
	// Owned says that nothing may outlive this process; otherwise instances do, under their shims.
	Owned bool
	Mode  fleet.Mode // the operator's choice; empty: what the machine can do
	// Gateway, Metrics, NATS and Pubsub are HOST:PORT of the operator's choice; empty: shoal.work's, else the default.
	Gateway, Metrics, NATS, Pubsub string
	// Join is HOST:PORT of the hub, for a node on another machine than the hub's; empty: it is on this one.
	// Token lets the machine join; a node that has joined needs none. Peers is HOST:PORT where it awaits
	// calls of other nodes (empty: port 7443, or the next free one, of the address by which it reaches
	// the hub), and Address where they find that, if it is another.
	Join, Token, Peers, Address string
	// Sibling starts the hub again where it has died; nil where Owned, and where the hub is elsewhere.
	Sibling func() error
	Log     *slog.Logger // nil: slog.Default
}

// stopPatience bounds the stop of all instances, beyond their own grace periods.
const stopPatience = 30 * time.Second

// node is the assembled process. Its fields are set before anything runs.
type node struct {
	Config
	started  time.Time
	settings *manifest.Workspace // shoal.work, as it was at the start
	secrets  *workspace.Secrets
	// credentials makes the passwords for NATS; nil on a machine that joined.
	credentials identity.CredentialKey
	capability  sidecar.Capability

	sockets    *daemon.Sockets
	recorder   *observe.Recorder
	export     *export.Export
	proxy      *proxy.Proxy
	sidecars   *sidecars
	standIns   *standIns
	supervisor *process.Supervisor
	gateway    *gateway.Gateway
	link       *link
	machines   *machines
	snapshots  *snapshots
	listeners  listeners

	quit     context.CancelCauseFunc // ends Run
	stopping atomic.Bool             // everything is being stopped: nothing is restarted
	leaving  atomic.Bool             // a successor has taken over: instances are its
}

// Run runs a node until ctx ends, the hub or an operator shuts it down, or a part of it fails. What
// becomes of the instances is Config.Owned's to say, unless they were shut down.
func Run(ctx context.Context, c Config) error {
	ctx, quit := context.WithCancelCause(ctx)
	defer quit(nil)
	n, err := assemble(ctx, c)
	if err != nil {
		return fmt.Errorf("the node cannot start: %w", err)
	}
	n.quit = quit
	return n.run(ctx)
}

// errShutdown ends Run without an error.
var errShutdown = errors.New("shut down")

func (n *node) run(ctx context.Context) error {
	if err := n.recover(ctx); err != nil {
		return err
	}
	endSupervision := n.supervise(ctx)
	defer observe.Keep(ctx, n.export.Run)()
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{
		n.proxy.Run,
		n.standIns.Run,
		n.link.Run,
		n.serveGateway,
		n.serveMetrics,
		n.serveNATS,
		n.servePubsub,
		n.serveOperator,
		n.servePeers,
		n.machines.run,
		n.watchHub,
	} {
		g.Go(func() error { return ended(ctx, part(ctx)) })
	}
	n.sockets.Ready()
	n.Log.Info("node ready", "mode", n.Mode, "gateway", n.listeners.gateway.Addr(), "metrics", n.listeners.metrics.Addr())
	<-ctx.Done()
	n.stopOwned()
	endSupervision()
	n.sidecars.Release()
	return cmp.Or(g.Wait(), failure(ctx))
}

// failure is why ctx ended, where that was not asked for.
func failure(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, errShutdown) && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// supervise runs the supervisor beyond ctx, since stopping instances needs it, until end is called.
func (n *node) supervise(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.supervisor.Run(ctx); err != nil {
			n.quit(fmt.Errorf("supervising instances: %w", err))
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// ended tells a part that stopped because it was told to from one that failed.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed)) {
		return nil
	}
	return err
}

// stopOwned stops the instances where they may not outlive this process.
func (n *node) stopOwned() {
	if !n.Owned || n.leaving.Load() {
		return
	}
	if err := n.stopAll(); err != nil {
		n.Log.Error("not every instance stopped", "error", err)
	}
}

// stopAll stops every instance for good: the next node here starts without assignments.
func (n *node) stopAll() error {
	n.stopping.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	return errors.Join(n.supervisor.StopAll(ctx), os.RemoveAll(n.assignments()))
}

// recover takes up what an earlier node left: its snapshot, its assignments, its living shims.
func (n *node) recover(ctx context.Context) error {
	n.snapshots.load()
	running, err := n.sidecars.Adopt(ctx)
	if err != nil {
		n.Log.Warn("an instance that was left running could not be taken over", "error", err)
	}
	return n.supervisor.Adopt(running)
}

func (n *node) hubLock() string { return filepath.Join(n.Paths.HubDir, "lock") }

func (n *node) assignments() string { return filepath.Join(n.Paths.NodeDir, "assignments") }

// watchHub starts the hub again where it has died. In a foreground `up` nobody does: the first
// death ends the fleet.
func (n *node) watchHub(ctx context.Context) error {
	if n.Sibling == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return daemon.Guard{
		Lock:  n.hubLock(),
		Start: n.Sibling,
		Hold:  n.stopping.Load,
		Log:   n.Log.With("restarting", "hub"),
	}.Run(ctx)
}

// servePeers carries what other processes call: the hub's deliveries.
func (n *node) servePeers(ctx context.Context) error {
	return n.proxy.ServePeer(ctx, n.listeners.peers)
}

func (n *node) serveGateway(ctx context.Context) error {
	return n.gateway.Serve(ctx, n.listeners.gateway)
}

// addressOf is HOST:PORT; empty where this node does not listen.
func addressOf(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

func (n *node) serveOperator(ctx context.Context) error {
	return api.Serve(ctx, n.listeners.operator, n.operator().Handler())
}

// status is what the hub is told when the link is made.
func (n *node) status() fleet.NodeStatus {
	return fleet.NodeStatus{
		Process: fleet.ProcessStatus{PID: os.Getpid(), Started: n.started},
		Version: n.Version,
		Mode:    n.Mode,
		Reason:  n.capability.Reason,
		Gateway: n.listeners.gateway.Addr().String(),
		Metrics: n.listeners.metrics.Addr().String(),
		NATS:    addressOf(n.listeners.nats),
		Pubsub:  addressOf(n.listeners.pubsub),
		Peers:   n.machines.address(),
		Held:    n.machines.held(),
	}
}

// snapshots installs what the hub sends and keeps it on disk.
type snapshots struct {
	dir     string
	log     *slog.Logger
	current *fleet.Snapshot
	install func(*fleet.Snapshot)
}

// load installs the last snapshot that reached this node, if there is one.
func (s *snapshots) load() {
	last, err := control.LoadSnapshot(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the last snapshot cannot be read whole; the hub will send it again", "error", err)
	}
	if last == nil {
		return
	}
	s.current = last
	s.install(last)
}

// take installs one version whole: the services that it holds over those that are known.
func (s *snapshots) take(p *parts) error {
	next := p.over(s.current)
	s.install(next)
	s.current = next
	if err := control.SaveSnapshot(s.dir, next, p.services...); err != nil {
		s.log.Error("the snapshot is in force, but could not be kept on disk", "error", err)
	}
	return nil
}
