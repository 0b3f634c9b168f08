package mesh

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

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

func TestHTTP2OverALane(t *testing.T) {
	f := newFleet(t)
	n := New(f.hub, nil)
	l := n.Lane(LinkProtocol, f.hub.Server(nil, LinkProtocol))
	address := f.serve(n)
	srv := &http.Server{Protocols: new(http.Protocols), ErrorLog: log.New(os.Stderr, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, "peer", c.(*Conn).Peer())
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Proto+" "+r.Context().Value("peer").(string))
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

var _ = errors.Is
var _ = strings.Cut
var _ = time.Now
