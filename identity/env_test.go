package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/identity"
)

// clock is a time that the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// disk is a store that can fail, before or after it has written.
type disk struct {
	mu     sync.Mutex
	values map[string][]byte
	before error // fail without writing
	after  error // write, then fail: an answer that was lost
	puts   int
}

func (d *disk) Get(_ context.Context, key string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	value, ok := d.values[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return value, nil
}

func (d *disk) Put(_ context.Context, key string, value []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.before != nil {
		return d.before
	}
	if d.values == nil {
		d.values = map[string][]byte{}
	}
	d.values[key] = append([]byte(nil), value...)
	d.puts++
	return d.after
}

func (d *disk) fail(before, after error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before, d.after = before, after
}

func (d *disk) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all strings.Builder
	for _, v := range d.values {
		all.Write(v)
	}
	return all.String()
}

// realm is a fleet: its authority, and the hub's source.
type realm struct {
	*identity.Authority
	t     *testing.T
	clock *clock
	disk  *disk
	hub   *identity.Source
}

func newRealm(t *testing.T, c *clock) *realm {
	t.Helper()
	r := &realm{t: t, clock: c, disk: &disk{}}
	r.reopen()
	r.hub = r.source()
	must(t, r.hub.Obtain(t.Context(), r.issueHub))
	return r
}

// reopen is a restart of the hub: the authority comes from its store.
func (r *realm) reopen() {
	r.t.Helper()
	a, err := identity.New(r.t.Context(), identity.Config{Fleet: "shop", Store: r.disk, Now: r.clock.Now})
	must(r.t, err)
	r.Authority = a
}

func (r *realm) issueHub(ctx context.Context, csr []byte) (identity.Issued, error) {
	return r.Issue(ctx, identity.Hub("shop"), csr)
}

func (r *realm) source() *identity.Source {
	r.t.Helper()
	s, err := identity.OpenSource(identity.SourceConfig{Now: r.clock.Now})
	must(r.t, err)
	return s
}

// join makes a token and lets a node join with it, over the wire.
func (r *realm) join(node string) *identity.Source {
	r.t.Helper()
	token, err := r.Token(r.t.Context(), node, 0)
	must(r.t, err)
	s := r.source()
	must(r.t, s.Obtain(r.t.Context(), r.joinWith(s, token)))
	return s
}

// joinWith dials the hub's door for newcomers, then joins.
func (r *realm) joinWith(s *identity.Source, token string) identity.Obtain {
	return func(ctx context.Context, csr []byte) (identity.Issued, error) {
		client, err := s.ClientForJoin(token)
		if err != nil {
			return identity.Issued{}, err
		}
		if _, err := shake(client, r.doors()); err != nil {
			return identity.Issued{}, err
		}
		return r.Join(ctx, token, csr)
	}
}

// renewOf dials the hub's renewal door with what s holds, then renews what the hub saw there.
func (r *realm) renewOf(s *identity.Source) identity.Obtain {
	return func(ctx context.Context, csr []byte) (identity.Issued, error) {
		seen, err := shake(s.ClientForRenewal(), r.doors())
		if err != nil {
			return identity.Issued{}, err
		}
		chain, err := identity.RenewalPeer(seen.server)
		if err != nil {
			return identity.Issued{}, err
		}
		return r.Renew(ctx, chain, csr)
	}
}

// doors is the hub's one port.
func (r *realm) doors() *tls.Config {
	return identity.ByProtocol(r.hub.Server(nil, "h2"), r.hub.ServerForRenewal(), r.hub.ServerForJoin())
}

// states are both ends of a connection, after bytes went both ways.
type states struct{ client, server tls.ConnectionState }

// shake makes a connection and sends a byte each way: in TLS 1.3 a client learns only then whether it
// was let in. The error is of the side that refused.
func shake(client, server *tls.Config) (states, error) {
	a, b, err := pair()
	if err != nil {
		return states{}, err
	}
	c, s := tls.Client(a, client), tls.Server(b, server)
	done := make(chan error, 1)
	go func() { done <- exchange(s, s.Read, s.Write) }()
	clientErr := exchange(c, c.Write, c.Read)
	serverErr := <-done
	for _, err := range []error{clientErr, serverErr} {
		if err != nil && !onlyHeard(err) {
			return states{}, err
		}
	}
	return states{c.ConnectionState(), s.ConnectionState()}, errors.Join(clientErr, serverErr)
}

// pair returns both ends of a connection over loopback.
func pair() (dialled, accepted net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if dialled, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	accepted, err = l.Accept()
	return dialled, accepted, err
}

func exchange(c *tls.Conn, first, then func([]byte) (int, error)) error {
	defer c.NetConn().Close()
	if err := c.HandshakeContext(context.Background()); err != nil {
		return err
	}
	if _, err := first([]byte{1}); err != nil {
		return err
	}
	_, err := then([]byte{1})
	return err
}

// onlyHeard tells whether an end failed because the other one did: by its alert, or by its close.
func onlyHeard(err error) bool {
	var network *net.OpError
	return errors.As(err, &network) || errors.Is(err, io.EOF)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, is error, says string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one that says %q", says)
	}
	if is != nil && !errors.Is(err, is) {
		t.Errorf("error is not %q: %v", is, err)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("error %q does not say %q", err, says)
	}
}

func certificates(t *testing.T, text string) (certs []*x509.Certificate) {
	t.Helper()
	for rest := []byte(text); len(rest) > 0; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		c, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		certs = append(certs, c)
	}
	return certs
}

func csr(t *testing.T) []byte {
	t.Helper()
	_, csr, err := identity.NewKey()
	must(t, err)
	return csr
}

// certificatesOf returns what a source presents, as an authority sees it after a handshake.
func certificatesOf(s *identity.Source) []*x509.Certificate { return []*x509.Certificate{s.Leaf()} }
