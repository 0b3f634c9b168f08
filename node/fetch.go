package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"

	"connectrpc.com/connect"

	peerv1 "github.com/shoalrun/shoal/api/gen/shoal/peer/v1"
	"github.com/shoalrun/shoal/workspace"
)

// fetch has the files of a release here, and returns their directory.
func (m *machines) fetch(ctx context.Context, service, id string) (string, error) {
	cache, err := workspace.CacheDir()
	if err != nil {
		return "", err
	}
	hub, err := m.node.link.Hub()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &download{sum: sha256.New(), open: func() (stream, error) {
		return hub.Release(ctx, connect.NewRequest(&peerv1.ReleaseRequest{Service: service, Id: id}))
	}}
	return workspace.Unpack(ctx, r, cache, service, id, r.check)
}

// stream is what the hub sends of a release.
type stream interface {
	Receive() bool
	Msg() *peerv1.ReleaseResponse
	Err() error
}

// download reads a release as the hub sends it. It asks for it with the first Read.
type download struct {
	open   func() (stream, error)
	stream stream
	sum    hash.Hash
	told   []byte // the sum that the hub sent at the end
	rest   []byte
}

func (d *download) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		if err := d.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

func (d *download) next() (err error) {
	if d.stream == nil {
		if d.stream, err = d.open(); err != nil {
			return said(err)
		}
	}
	if !d.stream.Receive() {
		if err := d.stream.Err(); err != nil {
			return said(err)
		}
		return io.EOF
	}
	m := d.stream.Msg()
	if m.Sha256 != nil {
		d.told = bytes.Clone(m.Sha256)
	}
	d.rest = bytes.Clone(m.Data)
	d.sum.Write(d.rest)
	return nil
}

// check tells whether what was read is what was sent.
func (d *download) check() error {
	if !bytes.Equal(d.told, d.sum.Sum(nil)) {
		return errors.New("what arrived is not what the hub sent; it is fetched again")
	}
	return nil
}

// secrets has the hub resolve references. What it told once is remembered, in memory alone: an instance
// that crashes while the hub is away starts again.
func (m *machines) secrets(ctx context.Context, refs []string) (map[string]string, error) {
	values, err := m.askSecrets(ctx, refs)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		maps.Copy(m.known, values)
		return values, nil
	}
	values = make(map[string]string, len(refs))
	for _, ref := range refs {
		v, known := m.known[ref]
		if !known {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
		values[ref] = v
	}
	return values, nil
}

func (m *machines) askSecrets(ctx context.Context, refs []string) (map[string]string, error) {
	hub, err := m.node.link.Hub()
	if err != nil {
		return nil, err
	}
	res, err := hub.Secrets(ctx, connect.NewRequest(&peerv1.SecretsRequest{Refs: refs}))
	if err != nil {
		return nil, said(err)
	}
	return res.Msg.Values, nil
}
