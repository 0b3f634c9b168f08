package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/control"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/identity"
	"github.com/shoalrun/shoal/mesh"
)

// machines is the node's part in a fleet of several machines: its identity, the port at which others call
// it, and what it knows of them. On the machine of the hub nothing of it is there until another may join.
type machines struct {
	node   *node
	source *identity.Source
	net    *mesh.Net
	hub    string // HOST:PORT by which this machine joined; empty beside the hub

	mu       sync.Mutex // guards what follows
	document *fleet.Mesh
	port     net.Listener
	known    map[string]string // values of secrets that the hub told; in memory alone
	learned  chan struct{}     // closed with the first document
}

// joined is what is kept on disk of how this machine joined.
type joined struct {
	Hub string `json:"hub"`
}

func newMachines(n *node) (*machines, error) {
	source, err := identity.OpenSource(identity.SourceConfig{Dir: filepath.Join(n.Paths.NodeDir, "identity"), Log: n.Log})
	if err != nil {
		return nil, err
	}
	m := &machines{node: n, source: source, net: mesh.New(source, n.Log), known: make(map[string]string), learned: make(chan struct{})}
	var j joined
	if err := readJSON(m.file("joined.json"), &j); err != nil {
		return nil, err
	}
	m.hub = cmp.Or(n.Join, j.Hub)
	var document fleet.Mesh
	if err := readJSON(m.file("mesh.json"), &document); err != nil {
		return nil, err
	}
	if document.Fleet != "" {
		m.setDocument(&document)
	}
	return m, nil
}

func (m *machines) file(name string) string { return filepath.Join(m.node.Paths.NodeDir, name) }

// readJSON reads a file that may be missing.
func readJSON(path string, into any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return fmt.Errorf("%s cannot be read: %w; remove it, and the hub tells its content again", path, err)
	}
	return nil
}

// elsewhere says that the hub is on another machine.
func (m *machines) elsewhere() bool { return m.hub != "" }

// current returns what is known of the other nodes; nil while this one is alone.
func (m *machines) current() *fleet.Mesh {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.document
}

func (m *machines) setDocument(d *fleet.Mesh) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.document == nil {
		close(m.learned)
	}
	m.document = d
}

// learn takes what the hub tells of the other nodes.
func (m *machines) learn(b []byte) {
	var d fleet.Mesh
	var bundle identity.Bundle
	if err := errors.Join(json.Unmarshal(b, &d), json.Unmarshal(d.Bundle, &bundle)); err != nil {
		m.node.Log.Error("what the hub tells of the other nodes cannot be read: is this binary older than the hub's?", "error", err)
		return
	}
	if !m.source.Empty() {
		if err := m.source.SetBundle(bundle); err != nil {
			m.node.Log.Error("the certificates that the hub trusts now are not in force here", "error", err)
		}
	}
	m.setDocument(&d)
	if err := control.WriteFile(m.file("mesh.json"), b); err != nil {
		m.node.Log.Error("what the hub tells of the other nodes could not be kept on disk", "error", err)
	}
	m.node.link.Restate() // the hub learns which bundle is in force
}

// address is where others call this node; empty while they cannot.
func (m *machines) address() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.port == nil {
		return ""
	}
	if m.node.Address != "" {
		return m.node.Address
	}
	return mesh.Address(m.port.Addr())
}

// held is what the node's identity has in force, as the hub is told.
func (m *machines) held() json.RawMessage {
	if m.source.Empty() {
		return nil
	}
	b, _ := json.Marshal(m.source.Held()) // plain data always marshals
	return b
}

// run serves the port, once others may join, until ctx ends.
func (m *machines) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.learned:
	}
	if err := m.enter(ctx); err != nil {
		return err
	}
	peers := m.net.Lane(mesh.PeerProtocol, m.source.Server(nil, mesh.PeerProtocol))
	operators := m.net.Lane(mesh.OperatorProtocol, m.source.Server(m.source.WantHub, mesh.OperatorProtocol))
	m.node.link.Restate()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.node.proxy.ServePeer(ctx, peers) })
	g.Go(func() error { return api.ServeProved(ctx, operators, m.node.remoteOperator().Handler()) })
	g.Go(func() error { return m.net.Run(ctx) })
	g.Go(func() error { return m.source.Run(ctx, m.renew) })
	g.Go(func() error { return m.restate(ctx) })
	g.Go(func() error { return m.net.Serve(ctx, m.port) })
	return g.Wait()
}

// enter gets what the port needs: a certificate, which is the hub's to give, and an address.
func (m *machines) enter(ctx context.Context) error {
	for wait := linkRetryMin; m.source.Empty(); wait = min(2*wait, linkRetryMax) {
		if err := m.source.Obtain(ctx, m.certify); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
	port, err := m.listen()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.port = port
	return err
}

func (m *machines) listen() (net.Listener, error) {
	if m.node.Peers != "" {
		return m.node.sockets.TCP("peers", m.node.Peers, true)
	}
	at := m.node.settings.Listeners.Peers.Address() // the hub has it; this moves to the next
	if m.elsewhere() {
		host, err := m.outward()
		if err != nil {
			return nil, err
		}
		at = net.JoinHostPort(host, strconv.Itoa(int(m.node.settings.Listeners.Peers.Port)))
	}
	return m.node.sockets.Default("peers", at, m.file("peers.address"))
}

// outward is this machine's own address on the way to the hub. Nothing is sent.
func (m *machines) outward() (string, error) {
	c, err := net.Dial("udp", m.hub)
	if err != nil {
		return "", fmt.Errorf("no way leads to the hub at %s: %w", m.hub, err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).IP.String(), nil
}

// restate tells the hub what is in force here whenever that changed.
func (m *machines) restate(ctx context.Context) error {
	for {
		changed := m.source.Changed()
		m.node.link.Restate()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// dial connects to the data path of another process.
func (m *machines) dial(ctx context.Context, peer string) (net.Conn, error) {
	d := m.current()
	if d == nil {
		return nil, fmt.Errorf("node %q is not part of this fleet", peer)
	}
	if peer == "hub" {
		return m.net.Dial(ctx, m.hubAddress(), m.source.Client(m.source.WantHub, mesh.PeerProtocol))
	}
	address := d.Peer(peer)
	if address == "" {
		return nil, fmt.Errorf("the hub has not told where node %q can be called", peer)
	}
	return m.net.Dial(ctx, mesh.Beside(address, m.hubAddress()), m.source.Client(mesh.WantNode(peer), mesh.PeerProtocol))
}

// hubAddress is where this machine reaches the hub's port.
func (m *machines) hubAddress() string {
	if m.elsewhere() {
		return m.hub
	}
	return mesh.Beside(m.current().Hub, "127.0.0.1:0")
}

// dialLink connects to the hub's end of the link.
func (m *machines) dialLink(ctx context.Context) (net.Conn, error) {
	return m.net.Dial(ctx, m.hub, m.source.Client(m.source.WantHub, mesh.LinkProtocol))
}
