package sidecar

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/sidecar/shim"
)

// lies are what a shim that an application has taken over could send as its sockets.
var lies = map[string]struct {
	network string
	want    string
}{
	"a socket of another family": {"tcp6", "wrong socket"},
	"a datagram socket":          {"udp4", "wrong socket"},
	"nothing":                    {"", "no sockets"},
}

// lyingShim answers a setup with a socket that is not what it says.
func lyingShim(lie string) int {
	f := os.NewFile(3, "control")
	l, err := net.FileListener(f)
	if err != nil {
		return fail(err)
	}
	u, err := l.(*net.UnixListener).AcceptUnix()
	if err != nil {
		return fail(err)
	}
	c := shim.NewConn(u)
	m, _, err := c.Receive()
	if err != nil {
		return fail(err)
	}
	status := &shim.Status{Sockets: []shim.Socket{{Name: shim.SocketCapture, Network: "tcp4"}}}
	file, err := lieFile(lies[lie].network)
	if err != nil {
		return fail(err)
	}
	var files []*os.File
	if file != nil {
		files = []*os.File{file}
	}
	_ = c.Send(shim.Message{Verb: "gossip", Lines: []string{"nobody asked"}}) // is ignored
	_ = c.Send(shim.Message{ID: m.ID + 7, Verb: shim.VerbDial}, files...)     // too
	_ = c.Send(shim.Message{ID: m.ID, Verb: m.Verb, Status: status}, files...)
	_, _, _ = c.Receive()
	return 0
}

func lieFile(network string) (*os.File, error) {
	switch network {
	case "tcp6":
		l, err := net.ListenTCP("tcp6", nil)
		if err != nil {
			return nil, err
		}
		return l.File()
	case "udp4":
		c, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return nil, err
		}
		return c.File()
	}
	return nil, nil
}

// What a shim sends is looked at: a socket that would make this process serve, or connect, in its own
// namespace is refused.
func TestShimIsNotTrusted(t *testing.T) {
	needNetns(t)
	for lie, c := range lies {
		t.Run(lie, func(t *testing.T) {
			s := newStand(t, func(c *Config) { c.Executable = liar(t, c.RuntimeDir, lie) })
			spec := Spec{Assignment: s.assignment(fleet.Netns, "orders-1", "true")}
			if _, err := s.Launch(context.Background(), spec); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v; want %q", err, c.want)
			}
		})
	}
}

// A socket of this process's own network namespace, or of another application's, is none of theirs.
func TestSocketsAreOfTheNamespace(t *testing.T) {
	needNetns(t)
	s := newStand(t)
	sc := s.launch(fleet.Netns, "orders-1", "sleep 60")
	l, err := net.ListenTCP("tcp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fresh := newSidecar(s.Manager, sc.rec)
	for _, s := range []*Sidecar{sc, fresh} {
		if err := s.check(f, "tcp4", true); err == nil || !strings.Contains(err.Error(), "namespace") {
			t.Errorf("a listener of the host: %v", err)
		}
	}
}

// liar returns a program that is this binary with TEST_LIE set.
func liar(t *testing.T, dir, lie string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := dir + "/liar"
	write(t, path, "#!/bin/sh\nTEST_LIE='"+lie+"' exec "+self(t)+" \"$@\"\n")
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}
