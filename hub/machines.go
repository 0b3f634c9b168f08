package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/control"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/identity"
	"github.com/shoalrun/shoal/manifest"
	"github.com/shoalrun/shoal/mesh"
)

// machines is the hub's part in a fleet of several machines: the certificate authority, the port at
// which others reach this one, and what every node must know of the others. Until the first token is
// asked for, nothing of it is there.
type machines struct {
	hub      *hub
	store    control.Store
	settings *manifest.Workspace // as they were at the start

	mu        sync.Mutex // guards what follows
	authority *identity.Authority
	source    *identity.Source
	net       *mesh.Net
	port      net.Listener
	invited   map[string]time.Time // node to when its token ends
	document  *fleet.Mesh          // nil: closed
	changed   chan struct{}        // closed, and made anew, with the document
	opened    chan struct{}        // closed once the port is open
}

// openKey says, in the store, that the port was opened once: a hub that starts again opens it too.
const openKey = "mesh.open"

func newMachines(h *hub, store control.Store, settings *manifest.Workspace) *machines {
	return &machines{
		hub: h, store: store, settings: settings, invited: make(map[string]time.Time),
		changed: make(chan struct{}), opened: make(chan struct{}),
	}
}

// restore opens the port where a hub before this one had it open.
func (m *machines) restore(ctx context.Context) error {
	was, err := m.store.Get(ctx, openKey)
	if err != nil || was == nil {
		return err
	}
	return m.open(ctx)
}

// open makes the certificate authority and opens the port, once.
func (m *machines) open(ctx context.Context) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.document != nil {
		return nil
	}
	if m.authority, err = identity.New(ctx, identity.Config{Fleet: m.hub.fleet, Store: m.store, LeafTTL: m.settings.Certificates, Log: m.hub.Log}); err != nil {
		return err
	}
	if m.source, err = identity.OpenSource(identity.SourceConfig{Log: m.hub.Log}); err != nil {
		return err
	}
	if err := m.source.Obtain(ctx, m.certify); err != nil {
		return fmt.Errorf("the hub's own certificate: %w", err)
	}
	if m.port, err = m.listen(); err != nil {
		return err
	}
	if err := m.store.Put(ctx, openKey, []byte("yes")); err != nil {
		return err
	}
	m.net = mesh.New(m.source, m.hub.Log)
	observing, _ := m.hub.export.Current()
	m.document = &fleet.Mesh{Fleet: m.hub.fleet, Ranges: m.settings.Ranges, Observing: observing, Limits: m.settings.Limits, Hub: m.address()}
	m.trustLocked()
	close(m.opened)
	m.hub.Log.Info("other machines may join", "peers", m.port.Addr())
	return nil
}

func (m *machines) listen() (net.Listener, error) {
	at := m.settings.Listeners.Peers
	if at.Line != 0 {
		return m.hub.sockets.TCP("peers", at.Address(), true)
	}
	return m.hub.sockets.Default("peers", at.Address(), filepath.Join(m.hub.Paths.HubDir, "peers.address"))
}

// address is where the port is, as others are told: without a host where it listens on all.
func (m *machines) address() string { return mesh.Address(m.port.Addr()) }

// certify certifies the hub itself.
func (m *machines) certify(ctx context.Context, csr []byte) (identity.Issued, error) {
	return m.authority.Issue(ctx, identity.Hub(m.hub.fleet), csr)
}

// certifyHome certifies the node on this machine, which needs no token: it has the hub's socket.
func (m *machines) certifyHome(ctx context.Context, csr []byte) (identity.Issued, error) {
	if document, _ := m.current(); document == nil {
		return identity.Issued{}, errors.New("this fleet is on one machine, and has no certificates")
	}
	token, err := m.authority.RejoinToken(ctx, m.hub.Node, time.Minute)
	if err != nil {
		return identity.Issued{}, err
	}
	return m.authority.Join(ctx, token, csr)
}

// trustLocked puts the authority's bundle into force here and into the document.
func (m *machines) trustLocked() {
	bundle := m.authority.Bundle()
	if err := m.source.SetBundle(bundle); err != nil {
		m.hub.Log.Error("the new bundle cannot be put into force in the hub", "error", err)
	}
	b, _ := json.Marshal(bundle) // plain data always marshals
	m.writeLocked(func(d *fleet.Mesh) { d.Bundle = b })
}

// writeLocked replaces the document by a changed copy and wakes who spreads it.
func (m *machines) writeLocked(change func(*fleet.Mesh)) {
	next := *m.document
	change(&next)
	m.document = &next
	close(m.changed)
	m.changed = make(chan struct{})
}

// observe puts other settings into the document, for nodes that join or start again.
func (m *machines) observe(o fleet.Observing) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.document != nil {
		m.writeLocked(func(d *fleet.Mesh) { d.Observing = o })
	}
}

// placed notes where the nodes await calls. A node that went away keeps its address.
func (m *machines) placed(live map[string]fleet.NodeStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.document == nil {
		return
	}
	peers := slices.Clone(m.document.Nodes)
	for name, status := range live {
		if status.Peers == "" || m.document.Peer(name) == status.Peers {
			continue
		}
		peers = slices.DeleteFunc(peers, func(p fleet.Peer) bool { return p.Name == name })
		peers = append(peers, fleet.Peer{Name: name, Address: status.Peers})
	}
	slices.SortFunc(peers, func(a, b fleet.Peer) int { return strings.Compare(a.Name, b.Name) })
	if !slices.Equal(peers, m.document.Nodes) {
		m.writeLocked(func(d *fleet.Mesh) { d.Nodes = peers })
	}
}

// current returns the document, nil while the port is closed, and what is closed when there is a newer.
func (m *machines) current() (*fleet.Mesh, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.document, m.changed
}

// run serves the port, once it is open, until ctx ends.
func (m *machines) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.opened:
	}
	links := m.net.Lane(mesh.LinkProtocol, m.source.Server(onlyNodes, mesh.LinkProtocol))
	peers := m.net.Lane(mesh.PeerProtocol, m.source.Server(onlyNodes, mesh.PeerProtocol))
	joins := m.net.Lane(identity.JoinProtocol, m.source.ServerForJoin())
	renewals := m.net.Lane(identity.RenewProtocol, m.source.ServerForRenewal())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.hub.serveLinkOn(ctx, links) })
	g.Go(func() error { return m.hub.proxy.ServePeer(ctx, peers) })
	g.Go(func() error { return m.serveEntry(ctx, joins) })
	g.Go(func() error { return m.serveEntry(ctx, renewals) })
	g.Go(func() error { return m.net.Run(ctx) })
	g.Go(func() error { return m.source.Run(ctx, m.certify) })
	g.Go(func() error { return m.follow(ctx) })
	g.Go(func() error { return m.net.Serve(ctx, m.port) })
	return g.Wait()
}

// onlyNodes admits nodes.
func onlyNodes(id identity.ID) error {
	if id.Kind != identity.KindNode {
		return fmt.Errorf("%s is no node", id)
	}
	return nil
}

// follow spreads what the authority changes.
func (m *machines) follow(ctx context.Context) error {
	for {
		changed := m.authority.Changed()
		m.mu.Lock()
		m.trustLocked()
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// dial connects to a node on another machine.
func (m *machines) dial(ctx context.Context, node, protocol string) (net.Conn, error) {
	document, _ := m.current()
	if document == nil {
		return nil, fmt.Errorf("node %q is not part of this fleet", node)
	}
	address := document.Peer(node)
	if address == "" {
		return nil, fmt.Errorf("node %s has not said where it can be called; `shoal nodes` shows whether it is connected", node)
	}
	return m.net.Dial(ctx, address, m.source.Client(mesh.WantNode(node), protocol))
}

// via connects to the operator API of a node on another machine.
func (m *machines) via(ctx context.Context, node string) (net.Conn, error) {
	return m.dial(ctx, node, mesh.OperatorProtocol)
}

// token invites a node.
func (m *machines) token(ctx context.Context, r api.TokenRequest) (api.Token, error) {
	if r.Node == m.hub.Node || identity.CheckNode(r.Node) != nil {
		return api.Token{}, fmt.Errorf("a node cannot be called %q: %s", r.Node, nodeNames)
	}
	if err := m.open(ctx); err != nil {
		return api.Token{}, err
	}
	ask := m.authority.Token
	if r.Rejoin {
		ask = m.authority.RejoinToken
	}
	token, err := ask(ctx, r.Node, r.Valid)
	if err != nil {
		return api.Token{}, err
	}
	valid := r.Valid
	if valid == 0 {
		valid = identity.DefaultTokenTTL
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.invited[r.Node] = time.Now().Add(valid)
	return api.Token{Token: token, Address: m.address()}, nil
}

const nodeNames = "take lower-case letters, digits and inner hyphens, and another name than the first node's"

// revoke takes a node out of the fleet.
func (m *machines) revoke(ctx context.Context, node string) error {
	if document, _ := m.current(); document == nil || node == m.hub.Node {
		return fmt.Errorf("%q is no node that joined; `shoal nodes` lists those", node)
	}
	if err := m.authority.Revoke(ctx, node); err != nil {
		return err
	}
	m.mu.Lock()
	delete(m.invited, node)
	m.writeLocked(func(d *fleet.Mesh) {
		d.Nodes = slices.DeleteFunc(slices.Clone(d.Nodes), func(p fleet.Peer) bool { return p.Name == node })
	})
	m.mu.Unlock()
	m.hub.link.expel(node)
	m.hub.nodesMoved(node)
	return nil
}
