package cli_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/cli"
	"github.com/shoalrun/shoal/daemon"
	"github.com/shoalrun/shoal/fleet"
)

// The test binary is also `shoal`, with a hub and a node that run no services but are processes of
// their own on real sockets. What they do wrong is asked for by the workspace's folder: a file
// named `fail` lets `up` fail, `die-hub` and `die-node` end the process.
func TestMain(m *testing.M) {
	if os.Getenv("CLI_TEST_SHOAL") != "" || len(os.Args) > 1 && (os.Args[1] == "hub" || os.Args[1] == "node") {
		os.Exit(run())
	}
	testscript.Main(m, map[string]func(){"shoal": func() { os.Exit(run()) }})
}

func run() int {
	return cli.Main(cli.Config{Version: "v0.0.0-test", Hub: fakeHub, Node: fakeNode, Probe: func(context.Context) []cli.Check {
		return []cli.Check{
			{Name: "namespaces", OK: true, Detail: "user, mount, PID and network"},
			{Name: "nftables", Detail: "the kernel refuses them", Remedy: "sudo modprobe nf_tables"},
		}
	}})
}

func fakeHub(ctx context.Context, a cli.HubArgs) error {
	f := &fake{args: a.ProcessArgs, process: api.Hub, started: time.Now(), quit: make(chan struct{})}
	return f.serve(ctx, a.Paths.Hub, &api.Server{
		Process: api.Hub, Info: f.info, Up: f.up, Down: f.down, Status: f.status, Watch: f.watch,
		Why:     func(context.Context, string) ([]fleet.Observation, error) { return nil, nil },
		Learned: func(context.Context) ([]fleet.Learned, error) { return nil, nil },
		Follow: func(ctx context.Context, _ func(fleet.Progress) error) error {
			<-ctx.Done()
			return ctx.Err()
		},
		Restart: func(_ context.Context, services []string, send func(fleet.Progress) error) error {
			return send(fleet.Progress{Service: strings.Join(services, ","), Phase: fleet.PhaseReady})
		},
		Publish: func(_ context.Context, p api.Publication) (string, error) {
			return fmt.Sprintf("%s|%s|%s|%s", p.Topic, p.ContentType, p.Data, p.Attributes["subject"]), nil
		},
		Upgrade: f.upgrade,
		Debug: func(_ context.Context, service string, on bool) error {
			if service != "web" {
				return fmt.Errorf("no service is called %s; this fleet has web", service)
			}
			return nil
		},
		Attach: func(ctx context.Context, service, address string, send func(fleet.Progress) error) error {
			err := send(fleet.Progress{Service: service, Phase: fleet.PhaseShift, Text: "calls go to " + address})
			<-ctx.Done()
			return err
		},
	})
}

func fakeNode(ctx context.Context, a cli.NodeArgs) error {
	f := &fake{args: a.ProcessArgs, process: api.Node, started: time.Now(), quit: make(chan struct{})}
	return f.serve(ctx, a.Paths.Node, &api.Server{
		Process: api.Node, Info: f.info, Down: f.down, Status: f.status,
		Upgrade: f.upgrade,
		Env: func(_ context.Context, service string) ([]api.Var, error) {
			vars := []api.Var{{Name: "SHOAL_GATEWAY", Value: "http://127.0.0.1:8000"}}
			if service != "" {
				vars = append(vars, api.Var{Name: "QUOTED", Value: "it's"}, api.Var{Name: "TOKEN", Value: "•••", Secret: true})
			}
			return vars, nil
		},
		Logs: func(_ context.Context, _ api.LogsRequest, send func(api.LogLine) error) error {
			return errors.Join(send(api.LogLine{Service: "web", Text: "hello \x1b[31mred\x1b[0m"}), send(api.LogLine{Service: "orders-with-a-long-name", Text: "two"}))
		},
		Exec: func(_ context.Context, r api.ExecRequest) (int, error) {
			in, err := io.ReadAll(r.Stdin)
			fmt.Fprintf(r.Stdout, "%s %q %s", r.Service, r.Command, in)
			return len(r.Command), err
		},
		Why:     func(context.Context, string) ([]fleet.Observation, error) { return observations(), nil },
		Learned: func(context.Context) ([]fleet.Learned, error) { return learned(), nil },
		Transport: func(caller string) http.RoundTripper {
			return answering{caller}
		},
		Tunnel: func(_ context.Context, _, service string, _ uint16) (net.Conn, error) {
			return nil, fmt.Errorf("no service is called %s", service)
		},
	})
}

// answering answers every call itself and says what it saw.
type answering struct{ caller string }

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	body := ""
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = string(b)
	}
	status := http.StatusOK
	if strings.HasPrefix(r.URL.Path, "/missing") {
		status = http.StatusNotFound
	}
	text := fmt.Sprintf("%s as %s: %s %s %q %s\n", r.Host, a.caller, r.Method, r.URL.RequestURI(), body, r.Header.Get("X-Test"))
	return &http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"X-Answer": {"yes"}}, Body: io.NopCloser(strings.NewReader(text)),
	}, nil
}

type fake struct {
	args    cli.ProcessArgs
	process api.Process
	started time.Time
	once    sync.Once
	quit    chan struct{}

	successor atomic.Pointer[string] // the executable of an upgrade
}

func (f *fake) serve(ctx context.Context, socket string, s *api.Server) error {
	if f.asked("die-" + string(f.process)) {
		return errors.New("it was asked to die")
	}
	if err := f.args.Paths.Prepare(); err != nil {
		return err
	}
	dir := f.args.Paths.NodeDir
	if f.process == api.Hub {
		dir = f.args.Paths.HubDir
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := daemon.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		for {
			select {
			case <-ctx.Done():
				return
			case <-f.quit:
				return
			case <-time.After(10 * time.Millisecond):
			}
			if f.process == api.Node && f.asked("down") {
				return
			}
		}
	}()
	err = api.ServeUnix(ctx, socket, s.Handler())
	os.WriteFile(f.file(string(f.process)+"-ended"), nil, 0o600)
	return err
}

func (f *fake) file(name string) string { return filepath.Join(filepath.Dir(f.args.Workspace), name) }

func (f *fake) asked(what string) bool {
	_, err := os.Stat(f.file(what))
	return err == nil
}

func (f *fake) info(context.Context) (api.Info, error) {
	started := f.started
	if f.successor.Load() != nil {
		started = started.Add(time.Second)
	}
	return api.Info{
		Process: f.process, Version: f.args.Version, PID: os.Getpid(), Fleet: "shop", Started: started,
		Workspace: f.args.Workspace, Data: f.args.Paths.Data, Executable: f.args.Executable, Owned: f.args.Owned,
	}, nil
}

// upgrade is another process a moment later.
func (f *fake) upgrade(_ context.Context, executable string, send func(fleet.Progress) error) error {
	time.AfterFunc(time.Millisecond, func() { f.successor.Store(&executable) })
	return send(fleet.Progress{Phase: fleet.PhaseStart, Text: "a new " + string(f.process)})
}

func (f *fake) up(_ context.Context, r api.UpRequest, send func(fleet.Progress) error) error {
	os.WriteFile(f.file("asked"), fmt.Appendf(nil, "%v learn=%v update=%v\n", r.Services, r.Learn, r.Update), 0o600)
	if f.asked("unreadable") {
		return errors.New("orders/shoal.yaml:3:1: unknown key `rnu`; did you mean `run`?")
	}
	send(fleet.Progress{Service: "web", Phase: fleet.PhaseBuild, Text: "go build ./..."})
	if f.asked("fail") {
		send(fleet.Progress{Service: "web", Phase: fleet.PhaseFailed, Text: "exited with code 3\n  panic: no database"})
		return errors.New("web failed")
	}
	send(fleet.Progress{Service: "web", Phase: fleet.PhaseStart})
	send(fleet.Progress{Service: "web", Phase: fleet.PhaseReady})
	return nil
}

func (f *fake) down(ctx context.Context, send func(fleet.Progress) error) error {
	if f.process == api.Hub && f.asked("hang") {
		<-ctx.Done() // as a hub that waits for a node which is gone
		return ctx.Err()
	}
	os.WriteFile(f.file("down"), nil, 0o600)
	err := send(fleet.Progress{Service: "web", Phase: fleet.PhaseStop})
	f.once.Do(func() { close(f.quit) })
	return err
}

func (f *fake) status(context.Context) (fleet.Status, error) {
	st := fleet.Status{Fleet: "shop", Version: f.args.Version, Gateway: "127.0.0.1:8000"}
	if f.asked("unreadable") {
		return st, nil
	}
	web := fleet.ServiceStatus{Name: "web", State: fleet.ServiceReady, Origin: fleet.Edit, Release: "1f3c9a000000", URL: "http://web.localhost:8000"}
	if f.asked("fail") {
		web.State, web.Failure, web.LastLog = fleet.ServiceFailed, "exited with code 3", []string{"panic: no database"}
	}
	st.Services = []fleet.ServiceStatus{web}
	return st, nil
}

func (f *fake) watch(ctx context.Context, send func(fleet.Status) error) error {
	st, err := f.status(ctx)
	if err := errors.Join(err, send(st)); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

var at = time.Date(2026, 3, 1, 12, 4, 5, 123e6, time.UTC)

func learned() []fleet.Learned {
	return []fleet.Learned{{Service: "orders", Section: "egress", Entry: "api.stripe.com:443"}, {Service: "orders", Section: "calls", Entry: "web"}}
}

// observations are one of each kind of story that `why` tells.
func observations() []fleet.Observation {
	call := fleet.Observation{
		Kind: fleet.KindCall, RequestID: "01REFUSED", Time: at, Duration: 84 * time.Microsecond, Caller: "orders", Callee: "payments",
		Protocol: fleet.HTTP, Method: "POST", Path: "/pay", Status: 403, Reason: string(fleet.ReasonUndeclaredCall),
	}
	told := call
	told.RequestID = "01TOLD"
	told.Detail = "orders may not call payments: orders/shoal.yaml does not declare it.\nAdd it under `calls:` (orders/shoal.yaml:12):\n\n    calls:\n      payments: {}"
	retried := fleet.Observation{
		Kind: fleet.KindCall, RequestID: "01RETRIED", Time: at, Duration: 12300 * time.Microsecond, Caller: fleet.Gateway, Callee: "web",
		Protocol: fleet.HTTP, Route: "default", Method: "GET", Path: "/", Status: 200, Attempts: []fleet.Attempt{
			{Instance: "web-1f3c9a-1", Duration: time.Millisecond, Outcome: "connection refused"},
			{Instance: "web-1f3c9a-2", Start: 2 * time.Millisecond, Duration: 10 * time.Millisecond, Outcome: "200"},
		},
	}
	slow := fleet.Observation{
		Kind: fleet.KindCall, RequestID: "01SLOW", Time: at, Duration: 300 * time.Millisecond, Caller: "orders", Callee: "inventory",
		Protocol: fleet.GRPC, Route: "default", Method: "POST", Path: "/inv.Inventory/Get", GRPCStatus: 4, Reason: string(fleet.ReasonTimeout),
	}
	lost := fleet.Observation{
		Kind: fleet.KindDelivery, RequestID: "01EVENT", Time: at, Duration: 5 * time.Millisecond, Caller: fleet.Events, Callee: "orders",
		Protocol: fleet.HTTP, Method: "POST", Path: "/events/settled", Topic: "payments.settled", Status: 500,
	}
	need := fleet.Observation{
		Kind: fleet.KindEgress, RequestID: "01NEED", Time: at, Caller: "orders", Callee: "orders.db", Protocol: fleet.TCP,
		Reason: string(fleet.ReasonUnboundNeed),
	}
	return []fleet.Observation{call, told, retried, slow, lost, need}
}
