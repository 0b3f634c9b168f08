//go:build linux

package sidecar

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// stand is a manager with folders of its own.
type stand struct {
	*Manager
	t     testing.TB
	dir   string
	proxy *answering
}

// newStand makes a data folder (masked), a runtime folder and a manager.
func newStand(t testing.TB, change ...func(*Config)) *stand {
	t.Helper()
	dir := shortDir(t)
	return standIn(t, dir, change...)
}

// shortDir is a temporary folder whose path leaves room for the name of a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func standIn(t testing.TB, dir string, change ...func(*Config)) *stand {
	t.Helper()
	p := newAnswering()
	c := configIn(dir, p, self(t))
	for _, f := range change {
		f(&c)
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return &stand{Manager: m, t: t, dir: dir, proxy: p}
}

func configIn(dir string, p DataPath, exe string) Config {
	data := filepath.Join(dir, "data")
	_ = os.MkdirAll(filepath.Join(data, "node"), 0o700)
	_ = os.WriteFile(filepath.Join(data, "node", "key"), []byte("top secret"), 0o600)
	return Config{
		Proxy: p, Node: "n1", Executable: exe,
		RuntimeDir: filepath.Join(dir, "run"),
		NamesFile:  filepath.Join(data, "node", "names.json"),
		LogDir:     filepath.Join(data, "logs"),
		Masks:      []string{data},
	}
}

// assignment is one of an instance of a service that listens on 8080.
func (s *stand) assignment(mode fleet.Mode, instance, command string) fleet.Assignment {
	service, _, _ := strings.Cut(instance, "-")
	return fleet.Assignment{
		Instance: instance, Service: service, Command: command, Mode: mode, Dir: s.dir,
		State: filepath.Join(s.dir, "data", "state", service),
		Manifest: fleet.Manifest{
			Service: service,
			Ports:   []fleet.Port{{Number: 8080, Protocol: fleet.HTTP}},
			Calls:   []fleet.Call{{Service: "inventory"}, {Service: "payments", As: "payments-svc"}},
			Needs:   []fleet.Need{{Name: "db", Port: 5432, Local: true}},
		},
	}
}

// launch starts an application, which ends with the test.
func (s *stand) launch(mode fleet.Mode, instance, command string, change ...func(*Spec)) *Sidecar {
	s.t.Helper()
	spec := Spec{Assignment: s.assignment(mode, instance, command), Env: []string{"GORACE=" + quickExit}}
	for _, f := range change {
		f(&spec)
	}
	sc, err := s.Launch(context.Background(), spec)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = sc.Stop(context.Background(), 0) })
	return sc
}

// output runs a command to its end and returns what it wrote.
func (s *stand) output(mode fleet.Mode, instance, command string) string {
	s.t.Helper()
	sc := s.launch(mode, instance, command)
	waitDone(s.t, sc)
	out := strings.Join(sc.Tail(), "\n")
	if code, failure := sc.Exit(); code != 0 || failure != "" {
		s.t.Errorf("%s: exit code %d %s:\n%s", command, code, failure, out)
	}
	return out
}

// run runs a command beside an application and returns what it wrote.
func run(t testing.TB, sc *Sidecar, command ...string) string {
	t.Helper()
	var out strings.Builder
	code, err := sc.Exec(context.Background(), ExecSpec{Command: command, Stdout: &out, Stderr: &out})
	if err != nil || code != 0 {
		t.Errorf("%s: exit code %d, %v:\n%s", strings.Join(command, " "), code, err, out.String())
	}
	return strings.TrimSpace(out.String())
}

func waitDone(t testing.TB, sc *Sidecar) {
	t.Helper()
	select {
	case <-sc.Done():
	case <-time.After(60 * time.Second):
		t.Fatalf("%s did not end; it wrote:\n%s", sc.Assignment().Instance, strings.Join(sc.Tail(), "\n"))
	}
}

// eventually polls until what is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
	}
}

// needNetns skips where the kernel refuses namespaces.
func needNetns(t testing.TB) {
	t.Helper()
	if c := Probe(context.Background()); c.Mode != fleet.Netns {
		t.Skipf("this kernel has no netns mode: %s; %s", c.Reason, c.Remedy)
	}
}

func bothModes(t *testing.T, f func(t *testing.T, mode fleet.Mode)) {
	t.Run("explicit", func(t *testing.T) { f(t, fleet.Explicit) })
	t.Run("netns", func(t *testing.T) {
		needNetns(t)
		f(t, fleet.Netns)
	})
}
