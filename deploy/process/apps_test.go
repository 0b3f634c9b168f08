//go:build unix

package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shoalrun/shoal/fleet"
)

// TestMain lets this binary be the applications that the tests supervise.
func TestMain(m *testing.M) {
	if app := os.Getenv("SHOAL_TEST_APP"); app != "" {
		os.Exit(serve(app))
	}
	os.Exit(m.Run())
}

// serve is an application: it tells its address, then serves until TERM.
func serve(app string) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 1
	}
	fmt.Printf("listening on %s\n", l.Addr())
	switch app {
	case "http":
		go http.Serve(l, http.HandlerFunc(answer))
	case "grpc":
		s := grpc.NewServer()
		healthpb.RegisterHealthServer(s, health.NewServer())
		go s.Serve(l)
	case "grpc-without-health":
		go grpc.NewServer().Serve(l)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	}
	if app == "stubborn" {
		time.Sleep(time.Hour) // select{} would be a deadlock to a runtime without cgo
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	<-term
	return 0
}

// answer is healthy while the file $SICK does not exist.
func answer(w http.ResponseWriter, r *http.Request) {
	if _, err := os.Stat(os.Getenv("SICK")); err == nil || r.URL.Path != "/healthz" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// machine starts applications as processes, as sidecar does in a node.
type machine struct {
	t *testing.T

	mu      sync.Mutex
	running map[string]*app
	starts  map[string]int
	specs   []Spec
	drained []string
}

type app struct {
	command *exec.Cmd
	done    chan struct{}

	mu      sync.Mutex
	lines   []string
	address string
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, running: map[string]*app{}, starts: map[string]int{}}
	t.Cleanup(m.killAll)
	return m
}

func (m *machine) killAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.running {
		_ = syscall.Kill(-a.PID(), syscall.SIGKILL)
		<-a.done
	}
}

func (m *machine) launch(_ context.Context, s Spec) (Process, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := &app{command: exec.Command("/bin/sh", "-c", s.Assignment.Command), done: make(chan struct{})}
	a.command.Env = append(os.Environ(), s.Env...)
	a.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, in := io.Pipe()
	ended := make(chan struct{})
	a.command.Stdout, a.command.Stderr = in, in
	a.command.WaitDelay = time.Second
	if err := a.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = a.command.Wait()
		in.Close() // ends what reads
		close(ended)
	}()
	go func() {
		a.read(out)
		<-ended
		close(a.done)
	}()
	m.running[s.Assignment.Instance] = a
	m.starts[s.Assignment.Instance]++
	m.specs = append(m.specs, s)
	return a, nil
}

// launchListening returns once the application listens, or has ended.
func (m *machine) launchListening(ctx context.Context, s Spec) (Process, error) {
	p, err := m.launch(ctx, s)
	if err != nil {
		return nil, err
	}
	for a := p.(*app); !a.listens(); {
		select {
		case <-a.done:
			return p, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return p, nil
}

func (a *app) listens() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.address != ""
}

func (a *app) read(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		a.mu.Lock()
		a.lines = append(a.lines, lines.Text())
		if address, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			a.address = address
		}
		a.mu.Unlock()
	}
}

func (a *app) Done() <-chan struct{} { return a.done }
func (a *app) PID() int              { return a.command.Process.Pid }

func (a *app) Tail() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.lines...)
}

func (a *app) Exit() (int, string) {
	status := a.command.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 0, "killed by " + map[syscall.Signal]string{syscall.SIGKILL: "SIGKILL", syscall.SIGSEGV: "SIGSEGV"}[status.Signal()]
	}
	return status.ExitStatus(), ""
}

func (a *app) Stop(ctx context.Context, grace time.Duration) error {
	_ = syscall.Kill(-a.PID(), syscall.SIGTERM)
	select {
	case <-a.done:
		return nil
	case <-time.After(grace):
	case <-ctx.Done():
	}
	_ = syscall.Kill(-a.PID(), syscall.SIGKILL)
	<-a.done
	return ctx.Err()
}

// dial connects to an application whose port 8080 is wherever it said; other ports are refused.
func (m *machine) dial(ctx context.Context, instance string, port uint16) (net.Conn, error) {
	m.mu.Lock()
	a := m.running[instance]
	m.mu.Unlock()
	if a == nil {
		return nil, errors.New("no such instance")
	}
	a.mu.Lock()
	address := a.address
	a.mu.Unlock()
	if address == "" || port != 8080 {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

func (m *machine) drain(_ context.Context, instance string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drained = append(m.drained, instance)
	return nil
}

// pid returns the process of an instance, and how often it was started.
func (m *machine) pid(instance string) (pid, starts int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.running[instance]; a != nil {
		return a.PID(), m.starts[instance]
	}
	return 0, 0
}

// node is a supervisor that runs, and what it reported.
type node struct {
	*Supervisor
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error

	mu      sync.Mutex
	reports []fleet.InstanceStatus
	awaited map[string]int // the last report that was waited for, by instance
}

// start makes a supervisor on dir that runs until the test ends; change may alter its config.
func start(t *testing.T, m *machine, dir string, running []Running, change func(*Config)) *node {
	t.Helper()
	n := &node{t: t, ended: make(chan error, 1), awaited: map[string]int{}}
	c := Config{Node: "n1", Dir: dir, Launch: m.launch, Dial: m.dial, Drain: m.drain, Settle: 50 * time.Millisecond,
		Report: func(s fleet.InstanceStatus) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.reports = append(n.reports, s)
		}}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Adopt(running); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.Supervisor, n.cancel = s, cancel
	go func() { n.ended <- s.Run(ctx) }()
	t.Cleanup(n.leave)
	return n
}

// leave ends the supervisor and leaves applications running.
func (n *node) leave() {
	n.cancel()
	if err, ok := <-n.ended; ok {
		close(n.ended)
		if err != nil {
			n.t.Error(err)
		}
	}
}

// until waits for a report of that state, of an instance: one that came no earlier than the last that was
// waited for, so that what passes quickly is not missed.
func (n *node) until(instance string, state fleet.InstanceState) fleet.InstanceStatus {
	n.t.Helper()
	var s fleet.InstanceStatus
	eventually(n.t, func() (met bool) { s, met = n.reported(instance, state); return met },
		func() string { return fmt.Sprintf("%s is never %s; at last %+v", instance, state, s) })
	return s
}

// reported returns the report that until waits for, or else the newest of the instance.
func (n *node) reported(instance string, state fleet.InstanceState) (newest fleet.InstanceStatus, met bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := n.awaited[instance]; i < len(n.reports); i++ {
		if n.reports[i].Instance != instance {
			continue
		}
		if newest = n.reports[i]; newest.State == state {
			n.awaited[instance] = i
			return newest, true
		}
	}
	return newest, false
}

func eventually(t *testing.T, met func() bool, otherwise func() string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !met(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(otherwise())
		}
	}
}

// assignment returns one that runs this test binary as app, or a shell command.
func assignment(instance, command string) fleet.Assignment {
	a := fleet.Assignment{Instance: instance, Service: "orders", Command: command,
		Release: fleet.Release{ID: "aaaaaaaaaaaa"}, Grace: fleet.Duration(5 * time.Second)}
	if app, ok := strings.CutPrefix(command, "app "); ok {
		a.Command = "exec " + os.Args[0]
		a.Env = []fleet.EnvVar{{Name: "SHOAL_TEST_APP", Value: app}}
		a.Manifest.Ports = onPort8080()
	}
	return a
}

// broken is an assignment of what ends before it listens: it is never ready, however slowly it ends.
func broken(instance, command string) fleet.Assignment {
	a := assignment(instance, command)
	a.Manifest.Ports = onPort8080()
	return a
}

func onPort8080() []fleet.Port { return []fleet.Port{{Number: 8080, Protocol: fleet.HTTP}} }
