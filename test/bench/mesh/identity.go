package main

import (
	"context"
	"io/fs"
	"net"
	"path/filepath"

	"github.com/shoalrun/shoal/identity"
	"github.com/shoalrun/shoal/mesh"
	"github.com/shoalrun/shoal/proxy"
)

// memory is an identity.Store of one goroutine.
type memory map[string][]byte

func (m memory) Get(_ context.Context, key string) ([]byte, error) {
	if v, ok := m[key]; ok {
		return v, nil
	}
	return nil, fs.ErrNotExist
}

func (m memory) Put(_ context.Context, key string, v []byte) error {
	m[key] = v
	return nil
}

// makeIdentities has both nodes join a fleet of their own, and writes what they are then.
func makeIdentities(ctx context.Context, dir string) error {
	authority, err := identity.New(ctx, identity.Config{Fleet: "bench", Store: memory{}})
	if err != nil {
		return err
	}
	for _, name := range []string{"a", "b"} {
		token, err := authority.Token(ctx, name, 0)
		if err != nil {
			return err
		}
		source, err := openIdentity(dir, name)
		if err != nil {
			return err
		}
		err = source.Obtain(ctx, func(ctx context.Context, csr []byte) (identity.Issued, error) { return authority.Join(ctx, token, csr) })
		if err != nil {
			return err
		}
	}
	return nil
}

func openIdentity(dir, name string) (*identity.Source, error) {
	return identity.OpenSource(identity.SourceConfig{Dir: filepath.Join(dir, "identity-"+name)})
}

// dialer is how a node reaches the one other.
func dialer(source *identity.Source, address string) func(context.Context, string) (net.Conn, error) {
	n := mesh.New(source, nil)
	return func(ctx context.Context, node string) (net.Conn, error) {
		return n.Dial(ctx, address, source.Client(mesh.WantNode(node), mesh.PeerProtocol))
	}
}

// servePeers serves other nodes on a listener until ctx ends.
func servePeers(ctx context.Context, p *proxy.Proxy, source *identity.Source, l net.Listener) {
	n := mesh.New(source, nil)
	lane := n.Lane(mesh.PeerProtocol, source.Server(nil, mesh.PeerProtocol))
	go func() { _ = p.ServePeer(ctx, lane) }()
	go func() { _ = n.Serve(ctx, l) }()
}
