package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

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
	"github.com/shoalrun/shoal/sidecar/shim"
	"github.com/shoalrun/shoal/workspace"
)

// listeners are what the node listens on itself.
type listeners struct {
	operator, peers  net.Listener // Unix sockets
	gateway, metrics net.Listener
	nats, pubsub     net.Listener // nil on a machine that joined
}

// assemble joins the rooms: every seam between them is filled here.
func assemble(ctx context.Context, c Config) (*node, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	n := &node{Config: c, started: time.Now()}
	if err := n.open(ctx); err != nil {
		return nil, err
	}
	n.chooseMode(ctx)
	n.recorder = observe.New(observe.Config{})
	sampler := new(observe.Sampler)
	n.export = export.New(export.Config{
		Recorder: n.recorder, Sampler: sampler, Fleet: n.settings.Fleet, Node: n.Name, Version: n.Version, Log: n.Log, Getenv: os.Getenv,
		Access: func() (io.Writer, error) {
			return shim.OpenLog(filepath.Join(n.Paths.Logs, "shoal"), "access-node.jsonl", export.AccessBytes)
		},
	}, n.settings.Observing)
	if err := n.joinDataPath(sampler); err != nil {
		return nil, err
	}
	if err := n.joinSupervisor(); err != nil {
		return nil, err
	}
	n.joinHub()
	return n, n.listen()
}

// open takes the lock and reads what the operator wrote.
func (n *node) open(ctx context.Context) (err error) {
	if err := n.wanted(); err != nil {
		return err
	}
	if err := n.Paths.Prepare(); err != nil {
		return err
	}
	if err := os.MkdirAll(n.Paths.NodeDir, 0o700); err != nil {
		return err
	}
	n.sockets = daemon.NewSockets()
	if err := n.sockets.Lock(filepath.Join(n.Paths.NodeDir, "lock")); err != nil {
		return err
	}
	if err := n.wanted(); err != nil { // once the lock is held: see Paths.Forget
		return err
	}
	if n.machines, err = newMachines(n); err != nil {
		return err
	}
	if n.machines.elsewhere() {
		n.settings, err = n.machines.join(ctx)
		return err
	}
	w, err := workspace.Open(workspace.Config{File: n.Workspace, Data: n.Paths.Data})
	if err != nil {
		return err
	}
	n.settings = w.Settings()
	n.secrets = w.Secrets()
	n.credentials, err = identity.OpenCredentials(n.Paths.HubDir)
	return err
}

// wanted keeps a node from starting that was on its way when the fleet was stopped.
func (n *node) wanted() error {
	if n.Sibling == nil {
		return nil
	}
	return n.Paths.CheckWanted()
}

func (n *node) chooseMode(ctx context.Context) {
	n.capability = sidecar.Probe(ctx)
	if n.Mode != "" {
		return // the operator chose
	}
	n.Mode = n.capability.Mode
	if n.Mode != fleet.Netns {
		n.Log.Warn("applications run without a namespace of their own; see docs/modes.md for what that leaves out",
			"why", n.capability.Reason, "remedy", n.capability.Remedy)
	}
}

func (n *node) joinDataPath(sampler *observe.Sampler) (err error) {
	n.sidecars = newSidecars(n.Paths.Logs)
	n.proxy, err = proxy.New(proxy.Config{
		Node:        n.Name,
		Ranges:      n.settings.Ranges,
		Recorder:    n.recorder,
		Sampler:     sampler,
		HubServices: []string{fleet.Events, fleet.Pubsub, fleet.NATS},
		Peer:        n.dialPeer,
		NameOf:      func(a netip.Addr) (string, bool) { return n.sidecars.manager.NameOf(a) },
	}.Limited(n.settings.Limits))
	if err != nil {
		return err
	}
	n.gateway = gateway.New(n.proxy)
	n.snapshots = &snapshots{
		dir: filepath.Join(n.Paths.NodeDir, "snapshot"),
		log: n.Log,
		install: func(s *fleet.Snapshot) {
			n.proxy.Install(s)
			n.gateway.Install(s)
		},
	}
	n.sidecars.manager, err = sidecar.New(sidecar.Config{
		Proxy:      n.proxy,
		Ranges:     n.settings.Ranges,
		Node:       n.Name,
		Executable: n.Executable,
		RuntimeDir: n.Paths.Runtime,
		NamesFile:  filepath.Join(n.Paths.NodeDir, "names.json"),
		Masks:      n.masks(),
		Owned:      n.Owned,
		LogDir:     n.Paths.Logs,
	})
	n.standIns = &standIns{manager: n.sidecars.manager, snapshot: n.proxy.Snapshot, password: n.password, ctx: context.Background(), open: make(map[string]*standIn)}
	return err
}

// masks are what no application may see: the data folder, the sockets, and the files of secrets.
func (n *node) masks() []string {
	masks := []string{n.Paths.Data, filepath.Dir(n.Paths.Runtime)}
	if n.secrets == nil {
		return masks // they are on the hub's machine
	}
	return append(masks, n.secrets.Files()...)
}

// dialPeer connects to the peer listener of another process: the hub on this machine by its socket.
func (n *node) dialPeer(ctx context.Context, peer string) (net.Conn, error) {
	if peer == "hub" && !n.machines.elsewhere() {
		return new(net.Dialer).DialContext(ctx, "unix", n.Paths.PeerHub)
	}
	return n.machines.dial(ctx, peer)
}

func (n *node) joinSupervisor() (err error) {
	if n.Owned && !n.sockets.Successor { // what the last fleet here left is none of this one's
		if err := os.RemoveAll(n.assignments()); err != nil {
			return err
		}
	}
	n.supervisor, err = process.New(process.Config{
		Node:    n.Name,
		Dir:     n.assignments(),
		Launch:  n.sidecars.Launch,
		Dial:    n.sidecars.Dial,
		Drain:   n.proxy.Drain,
		Secrets: n.resolveSecrets,
		Report:  func(s fleet.InstanceStatus) { n.link.Report(s) },
	})
	return err
}

// resolveSecrets looks secrets up: on the machine of the hub, which has their sources.
func (n *node) resolveSecrets(ctx context.Context, refs []string) (map[string]string, error) {
	if n.machines.elsewhere() {
		return n.machines.secrets(ctx, refs)
	}
	return n.secrets.Resolve(ctx, refs)
}

func (n *node) joinHub() {
	n.link = newLink(linkConfig{
		node:    n.Name,
		dial:    n.dialHub,
		learn:   n.machines.learn,
		observe: n.export.Set,
		short:   n.proxy.ShortOfRate,
		move:    n.proxy.MoveRate,
		refused: n.machines.refused,
		install: n.snapshots.take,
		command: n.command,
		quit:    func() { n.quit(errShutdown) },
		status:  n.status,
		all:     n.supervisor.Statuses,
		edges:   n.recorder.Edges,
		log:     n.Log,
	})
}

func (n *node) dialHub(ctx context.Context) (net.Conn, error) {
	if n.machines.elsewhere() {
		return n.machines.dialLink(ctx)
	}
	return new(net.Dialer).DialContext(ctx, "unix", n.Paths.Link)
}

// listen opens the node's own listeners, or takes over those of the node that it replaces.
func (n *node) listen() (err error) {
	if n.listeners.operator, err = n.sockets.Unix("operator", n.Paths.Node); err != nil {
		return err
	}
	if n.listeners.peers, err = n.sockets.Unix("peer", n.Paths.PeerNode); err != nil {
		return err
	}
	at := n.settings.Listeners
	if n.listeners.gateway, err = n.tcp("gateway", n.Config.Gateway, at.Gateway); err != nil {
		return err
	}
	if n.listeners.metrics, err = n.tcp("metrics", n.Metrics, at.Metrics); err != nil || n.machines.elsewhere() {
		return err
	}
	if n.listeners.nats, err = n.tcp("nats", n.NATS, at.NATS); err != nil {
		return err
	}
	n.listeners.pubsub, err = n.tcp("pubsub", n.Pubsub, at.Pubsub)
	return err
}

// tcp listens where the operator or shoal.work said; a default that is taken moves to the port that
// it had last time, or else to the next free one.
func (n *node) tcp(name, asked string, l manifest.Listener) (net.Listener, error) {
	if asked != "" {
		return n.sockets.TCP(name, asked, true)
	}
	if l.Line != 0 {
		return n.sockets.TCP(name, l.Address(), true)
	}
	return n.sockets.Default(name, l.Address(), filepath.Join(n.Paths.NodeDir, name+".address"))
}

// beside is the hub, where it is on this machine.
func (n *node) beside() []*observe.Beside {
	if n.machines.elsewhere() {
		return nil
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", n.Paths.Hub)
	}}}
	return []*observe.Beside{observe.NewBeside("hub", client, "http://hub/metrics")}
}

func (n *node) serveMetrics(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", n.recorder.Handler("node", n.beside()...))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(n.listeners.metrics); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
