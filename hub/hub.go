// Package hub assembles the process that decides: desired state, the broker, the repositories and
// the operator's API.
//
// It joins the rooms of two walks: of an event (broker publishes and delivers, the hub's own proxy
// carries deliveries out by the ordinary path) and of a change (api -> workspace builds -> deploy
// decides -> control compiles -> the link hands it to every node). Calls between services never pass
// here, and flow on while the hub is gone.
//
// [Run] is the whole interface.
package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/api/gen/shoal/peer/v1/peerv1connect"
	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/broker/nats"
	"github.com/shoalrun/shoal/broker/pubsub"
	"github.com/shoalrun/shoal/control"
	"github.com/shoalrun/shoal/daemon"
	"github.com/shoalrun/shoal/deploy"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/identity"
	"github.com/shoalrun/shoal/manifest"
	"github.com/shoalrun/shoal/mesh"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/observe/export"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/sidecar/shim"
	"github.com/shoalrun/shoal/workspace"
)

// Config of a hub. All fields but those that say otherwise are required.
type Config struct {
	Node       string // name of the node that runs instances
	Version    string // of this binary
	Executable string // absolute path of this binary
	Paths      api.Paths
	Workspace  string // absolute path of shoal.work
	Cache      string // folder of releases, build trees and cloned repositories
	NATS       string // the URL that `shoal up --nats` was given; empty: as shoal.work says
	// Owned says that a foreground `up` holds the fleet.
	Owned bool
	// Sibling starts the node again where it has died; nil where Owned.
	Sibling func() error
	Log     *slog.Logger // nil: slog.Default
}

// hub is the assembled process. Its fields are set before anything runs.
type hub struct {
	Config
	fleet    string
	settings *manifest.Workspace // shoal.work, as it was at the start
	secrets  *workspace.Secrets
	// credentials makes the passwords for NATS.
	credentials identity.CredentialKey
	started     time.Time

	sockets   *daemon.Sockets
	recorder  *observe.Recorder
	export    *export.Export
	proxy     *proxy.Proxy
	broker    *broker.Broker
	pubsub    *pubsub.Server
	nats      *nats.Server
	control   *control.Control
	link      *link
	machines  *machines
	driver    driver
	engine    *deploy.Engine
	progress  *progress
	listeners listeners

	joined    chan struct{} // closed when a node has first said what it runs
	joinOnce  sync.Once
	upping    sync.Mutex // held while one `up` loads
	faulting  sync.Mutex // held while faults change
	downing   bool       // no session may begin any more; guarded by upping
	session   atomic.Pointer[session]
	unwatched atomic.Pointer[string] // why the session of the hub before this one is not taken up yet
	quit      context.CancelCauseFunc
	stopping  atomic.Bool
	successor atomic.Pointer[successor]
}

// successor is what this process becomes at its end: another binary, with the sockets of this one.
type successor struct {
	executable string
	files      map[string]*os.File
}

// listeners are the hub's Unix sockets.
type listeners struct{ operator, link, peers net.Listener }

// errShutdown ends Run without an error.
var errShutdown = errors.New("shut down")

// Run runs a hub until ctx ends, an operator shuts the fleet down, or a part of it fails.
func Run(ctx context.Context, c Config) error {
	ctx, quit := context.WithCancelCause(ctx)
	defer quit(nil)
	h, err := assemble(c)
	if err != nil {
		return fmt.Errorf("the hub cannot start: %w", err)
	}
	h.quit = quit
	if err := h.run(ctx); err != nil || h.successor.Load() == nil {
		return err
	}
	next := h.successor.Load()
	return daemon.Exec(next.executable, next.files)
}

func (h *hub) run(ctx context.Context) error {
	defer observe.Keep(ctx, h.export.Run)()
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{
		h.broker.Run,
		h.pubsub.Run,
		h.nats.Run,
		h.proxy.Run,
		h.runEngine,
		h.spreadSnapshots,
		h.serveLink,
		h.servePeers,
		h.machines.run,
		h.serveOperator,
		h.watchNode,
		h.resume,
	} {
		g.Go(func() error { return ended(ctx, part(ctx)) })
	}
	h.sockets.Ready()
	h.Log.Info("hub ready", "fleet", h.fleet)
	err := g.Wait()
	if s := h.session.Load(); s != nil {
		s.close()
	}
	if errors.Is(context.Cause(ctx), errShutdown) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// ended tells a part that stopped because it was told to from one that failed.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed)) {
		return nil
	}
	return err
}

// assemble joins the rooms: every seam between them is filled here.
func assemble(c Config) (*hub, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	h := &hub{Config: c, started: time.Now(), progress: newProgress(), joined: make(chan struct{})}
	if err := h.open(); err != nil {
		return nil, err
	}
	h.recorder = observe.New(observe.Config{Broker: func() fleet.BrokerStatus { return h.broker.Status() }})
	sampler := new(observe.Sampler)
	h.export = export.New(export.Config{
		Recorder: h.recorder, Sampler: sampler, Fleet: h.fleet, Node: "hub", Version: h.Version, Log: h.Log, Getenv: os.Getenv,
		Access: func() (io.Writer, error) {
			return shim.OpenLog(filepath.Join(h.Paths.Logs, "shoal"), "access-hub.jsonl", export.AccessBytes)
		},
	}, h.settings.Observing)
	if err := h.joinEvents(sampler); err != nil {
		return nil, err
	}
	if err := h.joinChange(); err != nil {
		return nil, err
	}
	if err := h.machines.restore(context.Background()); err != nil {
		return nil, err
	}
	return h, h.listen()
}

// open takes the lock and reads the fleet's name.
func (h *hub) open() error {
	if err := h.wanted(); err != nil {
		return err
	}
	if err := h.Paths.Prepare(); err != nil {
		return err
	}
	if err := os.MkdirAll(h.Paths.HubDir, 0o700); err != nil {
		return err
	}
	h.sockets = daemon.NewSockets()
	if err := h.sockets.Lock(filepath.Join(h.Paths.HubDir, "lock")); err != nil {
		return err
	}
	if err := h.wanted(); err != nil { // once the lock is held: see Paths.Forget
		return err
	}
	if err := api.RaiseData(h.Paths.Data); err != nil {
		return err
	}
	w, err := workspace.Open(workspace.Config{File: h.Workspace, Cache: h.Cache, Data: h.Paths.Data})
	if err != nil {
		return err
	}
	h.fleet = w.Settings().Fleet
	h.settings, h.secrets, h.Cache = w.Settings(), w.Secrets(), w.Cache()
	h.credentials, err = identity.OpenCredentials(h.Paths.HubDir)
	return err
}

// wanted keeps a hub from starting that was on its way when the fleet was stopped.
func (h *hub) wanted() error {
	if h.Sibling == nil {
		return nil
	}
	return h.Paths.CheckWanted()
}

// joinEvents joins the broker to a proxy of the hub's own: `events` and `pubsub` are services that it
// hosts, and deliveries leave by its outbound path.
func (h *hub) joinEvents(sampler *observe.Sampler) (err error) {
	h.proxy, err = proxy.New(proxy.Config{
		Recorder: h.recorder,
		Sampler:  sampler,
		Builtin: map[string]func(net.Conn){
			fleet.Events: func(c net.Conn) { h.broker.ServeConn(c) },
			fleet.Pubsub: func(c net.Conn) { h.pubsub.ServeConn(c) },
			fleet.NATS:   func(c net.Conn) { h.nats.ServeConn(c) },
		},
		Peer: h.dialPeer,
	}.Limited(h.settings.Limits))
	if err != nil {
		return err
	}
	h.broker, err = broker.New(broker.Config{
		Dir:       filepath.Join(h.Paths.HubDir, "jetstream"),
		External:  h.external(),
		Fleet:     h.fleet,
		Observe:   h.recorder.Record,
		Committed: h.recorder.Committed, Acknowledged: h.recorder.Acknowledged,
		Sampler:   sampler,
		Transport: h.proxy.Transport,
		Check:     func(s *broker.TopicSchema, data []byte) (map[string]string, error) { return h.pubsub.Check(s, data) },
		Token: func(ctx context.Context, email, audience string) (string, error) {
			return h.pubsub.Token(ctx, email, audience)
		},
		Log: h.Log,
	})
	if err != nil {
		return err
	}
	h.pubsub, err = pubsub.New(context.Background(), pubsub.Config{Broker: h.broker, Store: h.broker.Store(), Project: h.fleet, Log: h.Log})
	if err != nil {
		return err
	}
	h.nats = nats.New(nats.Config{Broker: h.broker, Admit: h.credentials.Admits, Observe: h.recorder.Record, Log: h.Log})
	return nil
}

// dialPeer connects to the peer listener of a node: the one on this machine by its socket.
func (h *hub) dialPeer(ctx context.Context, node string) (net.Conn, error) {
	if node != h.Node {
		return h.machines.dial(ctx, node, mesh.PeerProtocol)
	}
	return new(net.Dialer).DialContext(ctx, "unix", h.Paths.PeerNode)
}

// joinChange joins deploy to control and to the node.
func (h *hub) joinChange() (err error) {
	h.control, err = control.New(control.Config{Store: h.broker.Store(), Fleet: h.fleet})
	if err != nil {
		return err
	}
	h.install(h.control.Snapshot()) // before anybody is served: a publish is not to be refused because its publisher is not known yet
	h.machines = newMachines(h, h.broker.Store(), h.settings)
	h.link = newLink(h.control)
	h.link.home, h.link.cache = h.Node, h.Cache
	h.link.observing = h.export.Current
	h.link.document, h.link.certify = h.machines.current, h.machines.certifyHome
	h.link.declares, h.link.secrets = h.declares, h.secrets.Resolve
	h.driver = driver{link: h.link, password: h.credentials.Password}
	h.engine, err = deploy.New(deploy.Config{
		Node:     h.Node,
		Driver:   h.driver,
		Apply:    h.apply,
		Progress: h.progress.Tell,
	})
	h.link.changed = func(s fleet.InstanceStatus) { h.engine.Observe(s) }
	h.link.joined = h.nodeJoined
	h.link.moved = func() { h.nodesMoved() }
	return err
}

// apply makes a change take effect: it returns when every live node has installed it.
func (h *hub) apply(ctx context.Context, c fleet.Change) error {
	version, err := h.control.Apply(ctx, c)
	if err != nil {
		return err
	}
	return h.control.Acked(ctx, version)
}

// nodeJoined takes what a node says it runs: to start from, the first time that the one beside this process
// speaks; to compare, else. Other nodes that speak before that one say it again once it has.
func (h *hub) nodeJoined(node string, all []fleet.InstanceStatus) {
	first := false
	if node == h.Node {
		h.joinOnce.Do(func() { first = true })
	}
	if !first {
		h.engine.Resync(node, all)
		return
	}
	h.engine.Adopt(all, h.control.Snapshot())
	close(h.joined)
}

// nodesMoved tells deploy which nodes there are now.
func (h *hub) nodesMoved(removed ...string) {
	now := h.link.live()
	h.machines.placed(now)
	var live []deploy.Node
	for name, status := range now {
		live = append(live, deploy.Node{Name: name, Mode: status.Mode})
	}
	h.engine.Nodes(live, removed...)
}

// runEngine starts to decide only once it is known what runs already.
func (h *hub) runEngine(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-h.joined:
		return h.engine.Run(ctx)
	}
}

// spreadSnapshots installs every snapshot in this process; the link sends it to the others.
func (h *hub) spreadSnapshots(ctx context.Context) error {
	h.control.Watch(ctx, func(s *fleet.Snapshot, _ []*fleet.Service, _ []string) {
		h.install(s)
	})
	return ctx.Err()
}

func (h *hub) install(s *fleet.Snapshot) {
	h.proxy.Install(s)
	h.broker.Install(s)
}

func (h *hub) listen() (err error) {
	for _, l := range []struct {
		name, path string
		to         *net.Listener
	}{
		{"operator", h.Paths.Hub, &h.listeners.operator},
		{"link", h.Paths.Link, &h.listeners.link},
		{"peer", h.Paths.PeerHub, &h.listeners.peers},
	} {
		if *l.to, err = h.sockets.Unix(l.name, l.path); err != nil {
			return err
		}
	}
	return nil
}

func (h *hub) serveLink(ctx context.Context) error {
	return h.serveLinkOn(ctx, api.Guard(h.listeners.link))
}

// How long a link may be silent until its other end is asked for a sign of life, and how long that may
// take: a machine that lost power closes no connection.
const (
	linkSilence = 2 * time.Second
	linkAnswer  = 3 * time.Second
)

// serveLinkOn serves the nodes that connect to l. At its end they connect again: nothing is drained.
func (h *hub) serveLinkOn(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle(peerv1connect.NewPeerHandler(h.link))
	srv := &http.Server{
		Handler: mux, Protocols: new(http.Protocols), ReadHeaderTimeout: 10 * time.Second, ConnContext: withConn,
		HTTP2:    &http.HTTP2Config{SendPingTimeout: linkSilence, PingTimeout: linkAnswer},
		ErrorLog: slog.NewLogLogger(h.Log.Handler(), slog.LevelDebug),
	}
	srv.Protocols.SetUnencryptedHTTP2(true)
	return serveUntil(ctx, srv, l)
}

func (h *hub) servePeers(ctx context.Context) error { return h.proxy.ServePeer(ctx, h.listeners.peers) }

func (h *hub) serveOperator(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("/", h.operator().Handler())
	mux.Handle("/metrics", h.recorder.Handler("hub")) // for the node, whose endpoint is the machine's
	return api.Serve(ctx, h.listeners.operator, mux)
}

func (h *hub) nodeLock() string { return filepath.Join(h.Paths.NodeDir, "lock") }

// watchNode starts the node again where it has died. In a foreground `up` nobody does: the first
// death ends the fleet.
func (h *hub) watchNode(ctx context.Context) error {
	if h.Sibling == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return daemon.Guard{
		Lock:  h.nodeLock(),
		Start: h.Sibling,
		Hold:  h.stopping.Load,
		Log:   h.Log.With("restarting", "node"),
	}.Run(ctx)
}
