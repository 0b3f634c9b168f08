package proxy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/wire/h2"
)

// authority signs the certificates of a test's nodes.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key))))
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return &authority{key, ca, pool}
}

// config is what a node shows and asks for, on both sides.
func (a *authority) config(node string) *tls.Config {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{node},
		URIs:        []*url.URL{must(url.Parse("spiffe://test/node/" + node))},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key))
	return &tls.Config{
		MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      a.pool, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
}

// securedConn is a connection that knows its peer's name, as those of mesh are, which this room may not know.
type securedConn struct {
	*tls.Conn
	peer string
}

func (c *securedConn) Peer() string { return c.peer }

// secure shakes hands.
func secure(ctx context.Context, c *tls.Conn) (*securedConn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	for _, u := range c.ConnectionState().PeerCertificates[0].URIs {
		if name, ok := strings.CutPrefix(u.String(), "spiffe://test/node/"); ok {
			return &securedConn{c, name}, nil
		}
	}
	c.Close()
	return nil, errors.New("no name of a node")
}

// secured is a listener of connections that have shaken hands; one that does not holds up no other.
type secured struct {
	net.Listener
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newSecured(l net.Listener, cfg *tls.Config) *secured {
	s := &secured{Listener: l, conns: make(chan net.Conn), closed: make(chan struct{})}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.shake(tls.Server(h2.Beneath(c), cfg))
		}
	}()
	return s
}

func (s *secured) shake(t *tls.Conn) {
	c, err := secure(context.Background(), t)
	if err != nil {
		return
	}
	select {
	case s.conns <- c:
	case <-s.closed:
		c.Close()
	}
}

func (s *secured) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *secured) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Listener.Close()
}

// mesh is a fleet of nodes in one process, which reach each other by mutual TLS over loopback.
type mesh struct {
	tb    testing.TB
	ca    *authority
	nodes map[string]*meshNode
	wire  func(from, to string, c net.Conn) net.Conn // between a node and the network; nil: nothing

	mu    sync.Mutex // guards addrs and dials
	addrs map[string]string
	dials map[string]int // by "from>to"
}

type meshNode struct {
	*world
	mesh *mesh
	name string
	stop context.CancelFunc // of its listener for peers
}

func newMesh(t *testing.T, nodes ...string) *mesh {
	return newMeshWith(t, nil, nil, nodes...)
}

func newMeshWith(tb testing.TB, edit func(*proxy.Config), wire func(from, to string, c net.Conn) net.Conn, nodes ...string) *mesh {
	m := &mesh{tb: tb, ca: newAuthority(tb), nodes: map[string]*meshNode{}, addrs: map[string]string{}, dials: map[string]int{}, wire: wire}
	for _, name := range nodes {
		m.join(name, edit)
	}
	return m
}

func (m *mesh) join(name string, edit func(*proxy.Config)) *meshNode {
	cfg := m.ca.config(name)
	n := &meshNode{mesh: m, name: name}
	c := proxy.Config{Node: name, Peer: func(ctx context.Context, to string) (net.Conn, error) { return m.dial(ctx, name, to, cfg) }}
	if name == "hub" {
		c.Node = "none"
		c.Builtin = map[string]func(net.Conn){"events": serveEvents}
	} else {
		c.HubServices = []string{"events", "pubsub"}
	}
	if edit != nil {
		edit(&c)
	}
	n.world = newWorldTB(m.tb, c)
	n.serve(cfg)
	m.nodes[name] = n
	return n
}

func (n *meshNode) serve(cfg *tls.Config) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	n.mesh.mu.Lock()
	n.mesh.addrs[n.name] = l.Addr().String()
	n.mesh.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.p.ServePeer(ctx, newSecured(l, cfg))
	}()
	n.mesh.tb.Cleanup(func() { cancel(); <-done })
}

func (m *mesh) dial(ctx context.Context, from, to string, cfg *tls.Config) (net.Conn, error) {
	m.mu.Lock()
	addr := m.addrs[to]
	m.dials[from+">"+to]++
	m.mu.Unlock()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if m.wire != nil {
		c = m.wire(from, to, c)
	}
	cfg = cfg.Clone()
	cfg.ServerName = to
	s, err := secure(ctx, tls.Client(h2.Beneath(c), cfg))
	if err != nil {
		return nil, err
	}
	return s, nil
}

// install gives every node the same picture.
func (m *mesh) install(services ...*fleet.Service) {
	for _, n := range m.nodes {
		n.install(services...)
	}
}

// at places instances: "INSTANCE@NODE".
func at(places ...string) func(*fleet.Service) {
	return func(s *fleet.Service) {
		s.Endpoints = nil
		for _, p := range places {
			instance, node, _ := strings.Cut(p, "@")
			s.Endpoints = append(s.Endpoints, fleet.Endpoint{Instance: instance, Node: node})
		}
	}
}

// newWorldTB is newWorld for benchmarks, too.
func newWorldTB(tb testing.TB, c proxy.Config) *world {
	tb.Helper()
	if t, ok := tb.(*testing.T); ok {
		return newWorld(t, c)
	}
	w := &world{recorder: observe.New(observe.Config{})}
	c.Recorder = w.recorder
	w.p = must(proxy.New(c))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.p.Run(ctx) }()
	tb.Cleanup(func() { cancel(); <-done })
	return w
}
