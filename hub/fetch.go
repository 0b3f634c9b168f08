package hub

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"
	"slices"

	"connectrpc.com/connect"

	peerv1 "github.com/shoalrun/shoal/api/gen/shoal/peer/v1"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/workspace"
)

// What a node fetches by its link: a certificate, the files of a release, the values of secrets. It gets
// what concerns the services that are placed on it, and nothing else.

// speaker returns the node that speaks: who its certificate says, or, on the socket of this machine, the
// one beside this process. What it claims to be must agree.
func (l *link) speaker(ctx context.Context, claimed string) (string, error) {
	node := l.home
	if c := connOf(ctx); c != nil {
		node = c.Peer()
	}
	if claimed != "" && claimed != node {
		return "", connect.NewError(connect.CodePermissionDenied, fmt.Errorf("node %s says that it is %q", node, claimed))
	}
	return node, nil
}

// Certify lets the node on this machine have a certificate: whoever can open the socket is that node.
func (l *link) Certify(ctx context.Context, req *connect.Request[peerv1.CertifyRequest]) (*connect.Response[peerv1.CertifyResponse], error) {
	if connOf(ctx) != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, errors.New("a node that joined renews its certificate, and gets no other"))
	}
	return certified(l.certify(ctx, req.Msg.Csr))
}

// Release sends the files of a release that is placed on the node.
func (l *link) Release(ctx context.Context, req *connect.Request[peerv1.ReleaseRequest], stream *connect.ServerStream[peerv1.ReleaseResponse]) error {
	node, err := l.speaker(ctx, "")
	if err != nil {
		return err
	}
	service, id := req.Msg.Service, req.Msg.Id
	if !l.places(node, func(s *fleet.Service, e fleet.Endpoint) bool { return s.Name == service && e.Release == id }) {
		return connect.NewError(connect.CodePermissionDenied, fmt.Errorf("release %s of %s is not placed on node %s", id, service, node))
	}
	dir := workspace.ReleaseDir(l.cache, service, id)
	if _, err := os.Stat(dir); err != nil {
		return connect.NewError(connect.CodeNotFound, fmt.Errorf("release %s of %s is not here any more: %w", id, service, err))
	}
	w := &chunks{stream: stream, sum: sha256.New()}
	if err := workspace.Pack(ctx, w, dir); err != nil {
		return connect.NewError(connect.CodeUnavailable, err)
	}
	if err := w.flush(); err != nil {
		return err
	}
	return stream.Send(&peerv1.ReleaseResponse{Sha256: w.sum.Sum(nil)})
}

// chunkSize is how many bytes of a release travel in one message.
const chunkSize = 256 << 10

// chunks sends what is written to it in messages of one size.
type chunks struct {
	stream *connect.ServerStream[peerv1.ReleaseResponse]
	sum    hash.Hash
	held   []byte
}

func (c *chunks) Write(p []byte) (int, error) {
	c.sum.Write(p)
	c.held = append(c.held, p...)
	for len(c.held) >= chunkSize {
		if err := c.stream.Send(&peerv1.ReleaseResponse{Data: c.held[:chunkSize]}); err != nil {
			return 0, err
		}
		c.held = append(c.held[:0], c.held[chunkSize:]...)
	}
	return len(p), nil
}

func (c *chunks) flush() error {
	if len(c.held) == 0 {
		return nil
	}
	defer func() { c.held = nil }()
	return c.stream.Send(&peerv1.ReleaseResponse{Data: c.held})
}

// Secrets resolves references that services placed on the node declare.
func (l *link) Secrets(ctx context.Context, req *connect.Request[peerv1.SecretsRequest]) (*connect.Response[peerv1.SecretsResponse], error) {
	node, err := l.speaker(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, ref := range req.Msg.Refs {
		if !l.places(node, func(s *fleet.Service, _ fleet.Endpoint) bool { return l.declares(s.Name, ref) }) {
			return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("no service on node %s declares the secret %s", node, ref))
		}
	}
	values, err := l.secrets(ctx, req.Msg.Refs)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	return connect.NewResponse(&peerv1.SecretsResponse{Values: values}), nil
}

// places tells whether something that keep accepts is placed on a node.
func (l *link) places(node string, keep func(*fleet.Service, fleet.Endpoint) bool) bool {
	for _, s := range l.control.Snapshot().Services {
		if slices.ContainsFunc(s.Endpoints, func(e fleet.Endpoint) bool { return e.Node == node && keep(s, e) }) {
			return true
		}
	}
	return false
}
