package h2_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/shoalrun/shoal/wire/h2"
	"golang.org/x/net/http2"
)

// The first GOAWAY promises nothing yet; a request that crosses it is served, and so is one that
// is open; what comes after the second is not.
func TestShutdownInTwoSteps(t *testing.T) {
	opened := make(chan *h2.Stream, 10)
	p := newPeer(t, h2.Config{}, func(s *h2.Stream, b *h2.Batch) { opened <- s })
	p.get()
	first := <-opened
	first.Conn().Shutdown()
	last := func() uint32 {
		for {
			f, err := p.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			switch f := f.(type) {
			case *http2.GoAwayFrame:
				return f.LastStreamID
			}
		}
	}
	if id := last(); id != 1<<31-1 {
		t.Fatal("first GOAWAY names", id)
	}
	p.get()
	second := <-opened
	_ = p.WritePing(true, [8]byte{'s', 'h', 'u', 't', 'd', 'o', 'w', 'n'})
	if id := last(); id != 3 {
		t.Fatal("second GOAWAY names", id)
	}
	p.get()
	for _, s := range []*h2.Stream{first, second} {
		_ = s.SendHead(nil, &h2.Head{Status: 200}, true)
	}
	for i, want := range []uint32{1, 3} {
		if status, _ := p.answer(want); status != "200" {
			t.Fatal(i, status)
		}
	}
	<-first.Conn().Done()
	if len(opened) != 0 {
		t.Fatal("a stream after the second GOAWAY was served")
	}
}

// A real server that shuts down loses none of the calls that a client of ours makes meanwhile: each
// either is answered or is reported as unprocessed.
func TestClientSeesGoAway(t *testing.T) {
	l := listen(t)
	block := make(chan struct{})
	s := &http.Server{Protocols: &http.Protocols{}, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-block
		}
	})}
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	c := dial(t, l.Addr().String(), h2.Config{})
	open := func(path string) (*h2.Stream, error) {
		return c.Open(nil, &h2.Head{Method: "GET", Scheme: "http", Path: path, Authority: "a"}, true, nil)
	}
	waiting, err := open("/wait")
	if err != nil {
		t.Fatal(err)
	}
	quick, err := open("/")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := quick.ReadHead(t.Context()); err != nil {
		t.Fatal(err)
	}
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	eventually(t, "the connection takes no stream", func() bool {
		s, err := open("/")
		if err == nil {
			_, err = s.ReadHead(t.Context())
			s.Release(nil)
			var se *h2.StreamError
			if errors.As(err, &se) && !se.Unprocessed {
				t.Fatal(err)
			}
			return false
		}
		return errors.Is(err, h2.ErrDraining)
	})
	close(block)
	if head, err := waiting.ReadHead(t.Context()); err != nil || head.Status != 200 {
		t.Fatal(err)
	}
	<-c.Done()
	if err := <-down; err != nil {
		t.Fatal(err)
	}
}

// A lost connection ends its streams, and says so.
func TestLostConnection(t *testing.T) {
	l := listen(t)
	conns := serve(t, l, h2.Config{}, never)
	c := dial(t, l.Addr().String(), h2.Config{})
	s, err := c.Open(nil, &h2.Head{Method: "POST", Scheme: "http", Path: "/", Authority: "a"}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server has it", func() bool { return len(conns.all()) == 1 && conns.all()[0].Streams() == 1 })
	conns.all()[0].Close()
	var se *h2.StreamError
	if _, err := s.ReadHead(t.Context()); !errors.As(err, &se) || !se.Remote {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Fatal("a write on a lost connection went well")
	}
	<-c.Done()
	if _, err := c.Open(nil, &h2.Head{Method: "GET"}, true, nil); !errors.Is(err, h2.ErrDraining) {
		t.Fatal(err)
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	l := listen(t)
	serve(t, l, h2.Config{Idle: 20 * time.Millisecond}, never)
	c := dial(t, l.Addr().String(), h2.Config{})
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the idle connection was kept")
	}
}

// Connections without a descriptor work the same.
func TestPlainTransport(t *testing.T) {
	a, b := net.Pipe()
	server := h2.NewServer(a, h2.Config{}, echo)
	client := h2.NewClient(b, h2.Config{})
	go func() { _ = server.Run(context.Background(), nil) }()
	go func() { _ = client.Run(context.Background(), nil) }()
	s, err := client.Open(nil, &h2.Head{Method: "POST", Scheme: "http", Path: "/", Authority: "a"}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = s.Write(make([]byte, 300_000))
		_ = s.CloseWrite(nil)
	}()
	if _, err := s.ReadHead(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, s); n != 300_000 || err != nil {
		t.Fatal(n, err)
	}
	client.Shutdown()
	s.Release(nil)
	<-client.Done()
	<-server.Done()
}
