package mesh

import (
	"context"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/shoalrun/shoal/identity"
)

// memory is an identity.Store.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (m *memory) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.values[key]; ok {
		return v, nil
	}
	return nil, fs.ErrNotExist
}

func (m *memory) Put(_ context.Context, key string, v []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[key] = v
	return nil
}

// fleet is a certificate authority with a hub and some nodes.
type fleet struct {
	*testing.T
	authority *identity.Authority
	hub       *identity.Source
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	a, err := identity.New(t.Context(), identity.Config{Fleet: "shop", Store: &memory{values: map[string][]byte{}}})
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{T: t, authority: a}
	f.hub = f.source(func(ctx context.Context, csr []byte) (identity.Issued, error) {
		return a.Issue(ctx, identity.Hub("shop"), csr)
	})
	return f
}

func (f *fleet) source(obtain identity.Obtain) *identity.Source {
	f.Helper()
	s, err := identity.OpenSource(identity.SourceConfig{})
	if err == nil {
		err = s.Obtain(f.Context(), obtain)
	}
	if err != nil {
		f.Fatal(err)
	}
	return s
}

func (f *fleet) node(name string) *identity.Source {
	f.Helper()
	token, err := f.authority.Token(f.Context(), name, 0)
	if err != nil {
		f.Fatal(err)
	}
	return f.source(func(ctx context.Context, csr []byte) (identity.Issued, error) {
		return f.authority.Join(ctx, token, csr)
	})
}

// serve serves the lanes that open makes at an address of loopback.
func (f *fleet) serve(n *Net) (address string) {
	f.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = n.Serve(ctx, l) })
	work.Go(func() { _ = n.Run(ctx) })
	f.Cleanup(func() { cancel(); work.Wait() })
	return l.Addr().String()
}

type peerKey struct{}

func TestHTTP2OverALane(t *testing.T) {
	f := newFleet(t)
	n := New(f.hub, nil)
	l := n.Lane(LinkProtocol, f.hub.Server(nil, LinkProtocol))
	address := f.serve(n)
	srv := &http.Server{Protocols: new(http.Protocols), ErrorLog: log.New(os.Stderr, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*Conn).Peer())
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Proto+" "+r.Context().Value(peerKey{}).(string))
		})}
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })

	b := f.node("b")
	from := New(b, nil)
	transport := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return from.Dial(ctx, address, b.Client(b.WantHub, LinkProtocol))
	}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get("http://hub/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); string(text) != "HTTP/2.0 b" {
		t.Errorf("the hub saw %q", text)
	}
}

// accepting counts the connections of a lane, and keeps them open.
func accepting(t *testing.T, l net.Listener) <-chan *Conn {
	conns := make(chan *Conn, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c.(*Conn)
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return conns
}

func TestRevokedPeersAreCutOff(t *testing.T) {
	f := newFleet(t)
	n := New(f.hub, nil)
	arrived := accepting(t, n.Lane(LinkProtocol, f.hub.Server(nil, LinkProtocol)))
	address := f.serve(n)
	b, c := f.node("b"), f.node("c")
	cut, err := New(b, nil).Dial(t.Context(), address, b.Client(b.WantHub, LinkProtocol))
	if err != nil {
		t.Fatal(err)
	}
	stays, err := New(c, nil).Dial(t.Context(), address, c.Client(c.WantHub, LinkProtocol))
	if err != nil {
		t.Fatal(err)
	}
	<-arrived
	kept := <-arrived
	if kept.Peer() != "c" {
		t.Fatalf("%s came second", kept.Peer())
	}
	if err := f.authority.Revoke(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if err := f.hub.SetBundle(f.authority.Bundle()); err != nil {
		t.Fatal(err)
	}
	if _, err := cut.Read(make([]byte, 1)); err == nil {
		t.Error("the revoked node's connection is open")
	}
	if _, err := kept.Write([]byte("x")); err != nil {
		t.Error("the other node's connection:", err)
	}
	if _, err := io.ReadFull(stays, make([]byte, 1)); err != nil {
		t.Error("the other node's connection:", err)
	}
}

func TestPortRefusesWhatNoLaneSpeaks(t *testing.T) {
	f := newFleet(t)
	n := New(f.hub, nil)
	accepting(t, n.Lane(LinkProtocol, f.hub.Server(nil, LinkProtocol)))
	address := f.serve(n)
	b := f.node("b")
	if _, err := New(b, nil).Dial(t.Context(), address, b.Client(b.WantHub, PeerProtocol)); err == nil {
		t.Error("a protocol without a lane was let in")
	}
}

// Who connects and says nothing holds up nobody.
func TestSilentConnectionsHoldUpNobody(t *testing.T) {
	f := newFleet(t)
	n := New(f.hub, nil)
	arrived := accepting(t, n.Lane(LinkProtocol, f.hub.Server(nil, LinkProtocol)))
	address := f.serve(n)
	for range 20 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	b := f.node("b")
	if _, err := New(b, nil).Dial(t.Context(), address, b.Client(b.WantHub, LinkProtocol)); err != nil {
		t.Fatal(err)
	}
	if c := <-arrived; c.Peer() != "b" {
		t.Errorf("%q came", c.Peer())
	}
}

func TestAddresses(t *testing.T) {
	all := &net.TCPAddr{IP: net.IPv6zero, Port: 7443}
	if got := Beside(Address(all), "10.0.0.7:7000"); got != "10.0.0.7:7443" {
		t.Error(got)
	}
	one := &net.TCPAddr{IP: net.ParseIP("10.0.0.1"), Port: 7443}
	if got := Beside(Address(one), "10.0.0.7:7000"); got != "10.0.0.1:7443" {
		t.Error(got)
	}
}
