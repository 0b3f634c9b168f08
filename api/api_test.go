package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

// running serves what the funcs answer on real sockets. A nil server is a process that is gone.
func running(t *testing.T, hub, node *api.Server) *api.Client {
	t.Helper()
	p := place(t)
	if err := p.Prepare(); err != nil {
		t.Fatal(err)
	}
	serve(t, p.Hub, hub)
	serve(t, p.Node, node)
	c := api.Dial(p)
	t.Cleanup(c.Close)
	return c
}

// place returns paths in folders of the test's own, short enough for sockets.
func place(t *testing.T) api.Paths {
	t.Helper()
	xdg, err := os.MkdirTemp("", "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(xdg) })
	t.Setenv("XDG_RUNTIME_DIR", xdg)
	p, err := api.Locate(filepath.Join(t.TempDir(), ".shoal"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func serve(t *testing.T, socket string, s *api.Server) (stop func()) {
	t.Helper()
	if s == nil {
		return func() {}
	}
	l, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, l, s.Handler()) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return stop
}

func TestNothingRuns(t *testing.T) {
	c := running(t, nil, nil)
	ctx := t.Context()
	asks := map[string]func() error{
		"status":  func() error { _, err := c.Status(ctx); return err },
		"up":      func() error { return c.Up(ctx, api.UpRequest{}, nil) },
		"down":    func() error { return c.Down(ctx, nil) },
		"logs":    func() error { return c.Logs(ctx, api.LogsRequest{}, nil) },
		"why":     func() error { _, err := c.Why(ctx, ""); return err },
		"tap":     func() error { return c.Tap(ctx, api.TapRequest{}, nil) },
		"exec":    func() error { _, err := c.Exec(ctx, api.ExecRequest{}); return err },
		"forward": func() error { _, err := c.Forward(ctx, "web", 0); return err },
		"publish": func() error { _, err := c.Publish(ctx, api.Publication{}); return err },
		"call": func() error {
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://web/", nil)
			_, err := c.Call("", req)
			return err
		},
	}
	for verb, ask := range asks {
		if err := ask(); !errors.Is(err, api.ErrNotRunning) {
			t.Errorf("%s: %v; want %v", verb, err, api.ErrNotRunning)
		}
	}
}

func TestNodeAnswersWhereTheHubIsGone(t *testing.T) {
	node := &api.Server{
		Process: api.Node,
		Status:  func(context.Context) (fleet.Status, error) { return fleet.Status{Fleet: "shop"}, nil },
		Down: func(_ context.Context, send func(fleet.Progress) error) error {
			return send(fleet.Progress{Phase: fleet.PhaseStop, Service: "web"})
		},
		Why: func(context.Context, string) ([]fleet.Observation, error) {
			return []fleet.Observation{{Callee: "web"}}, nil
		},
		Info: func(context.Context) (api.Info, error) { return api.Info{Process: api.Node, PID: 7}, nil },
	}
	c := running(t, nil, node)
	if st, err := c.Status(t.Context()); err != nil || st.Fleet != "shop" {
		t.Errorf("Status = %+v, %v", st, err)
	}
	if seen, err := c.Why(t.Context(), ""); err != nil || len(seen) != 1 {
		t.Errorf("Why = %+v, %v", seen, err)
	}
	var stopped []string
	if err := c.Down(t.Context(), func(p fleet.Progress) { stopped = append(stopped, p.Service) }); err != nil || !slices.Equal(stopped, []string{"web"}) {
		t.Errorf("Down told of %v, %v", stopped, err)
	}
	err := c.Restart(t.Context(), nil, nil)
	var gone *api.GoneError
	if !errors.As(err, &gone) || !strings.Contains(err.Error(), "the hub is gone, and only it answers `restart`") {
		t.Errorf("Restart: %v", err)
	}
}

func TestAVerbOfTheOtherProcessSaysSo(t *testing.T) {
	c := running(t, &api.Server{Process: api.Hub}, &api.Server{Process: api.Node})
	_, err := c.Status(t.Context())
	if err == nil || err.Error() != "the hub does not answer `status`: ask the node" {
		t.Errorf("got %v", err)
	}
	req, _ := http.NewRequest("GET", "http://web/", nil)
	res, err := c.Call("", req)
	if err != nil || res.StatusCode != http.StatusNotImplemented {
		t.Errorf("call without a transport: %v, %v", res, err)
	}
}

func TestErrorsArriveAsTheyWereWritten(t *testing.T) {
	hub := &api.Server{Process: api.Hub, Restart: func(context.Context, []string, func(fleet.Progress) error) error {
		return errors.New("no service is called wbe: did you mean web?")
	}}
	err := running(t, hub, nil).Restart(t.Context(), []string{"wbe"}, nil)
	if err == nil || err.Error() != "no service is called wbe: did you mean web?" {
		t.Errorf("got %v", err)
	}
}

func TestValuesTravelWhole(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	want := fleet.Status{Fleet: "shop", Services: []fleet.ServiceStatus{{Name: "web", State: fleet.ServiceReady,
		Instances: []fleet.InstanceStatus{{Instance: "web-1", Started: at}}}}}
	var asked api.UpRequest
	var published api.Publication
	hub := &api.Server{
		Process: api.Hub,
		Up: func(_ context.Context, r api.UpRequest, send func(fleet.Progress) error) error {
			asked = r
			return send(fleet.Progress{Time: at, Service: "web", Phase: fleet.PhaseReady})
		},
		Watch: func(_ context.Context, send func(fleet.Status) error) error { return send(want) },
		Publish: func(_ context.Context, p api.Publication) (string, error) {
			published = p
			return "e-1", nil
		},
		Debug: func(_ context.Context, service string, on bool) error {
			return fmt.Errorf("%s %v", service, on)
		},
		AddFault: func(_ context.Context, f fleet.Fault) (fleet.Fault, error) {
			f.ID = "f1"
			return f, nil
		},
		RemoveFaults: func(_ context.Context, ids []string, by string) ([]string, error) {
			return append(ids, by), nil
		},
		Learned: func(context.Context) ([]fleet.Learned, error) {
			return []fleet.Learned{{Service: "web", Section: "publishes", Entry: "orders.placed"}}, nil
		},
	}
	node := &api.Server{
		Process: api.Node,
		Env: func(_ context.Context, service string) ([]api.Var, error) {
			return []api.Var{{Name: "A", Value: "•••", Secret: true}, {Name: "SERVICE", Value: service}}, nil
		},
		Logs: func(_ context.Context, r api.LogsRequest, send func(api.LogLine) error) error {
			return send(api.LogLine{Service: r.Services[0], Time: at, Text: fmt.Sprint(r.Tail, r.Follow)})
		},
		Learned: func(context.Context) ([]fleet.Learned, error) {
			return []fleet.Learned{{Service: "web", Section: "calls", Entry: "orders"}}, nil
		},
	}
	c := running(t, hub, node)
	up := api.UpRequest{Workspace: "/w/shoal.work", Services: []string{"web"}, Learn: true, Update: true}
	var steps []fleet.Progress
	if err := c.Up(t.Context(), up, func(p fleet.Progress) { steps = append(steps, p) }); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(asked) != fmt.Sprint(up) || len(steps) != 1 || !steps[0].Time.Equal(at) {
		t.Errorf("up arrived as %+v, its progress as %+v", asked, steps)
	}
	var got fleet.Status
	if err := c.Watch(t.Context(), func(s fleet.Status) { got = s }); err != nil || got.Services[0].Instances[0].Instance != "web-1" {
		t.Errorf("Watch = %+v, %v", got, err)
	}
	if id, err := c.Publish(t.Context(), api.Publication{Topic: "t", Data: []byte{0, 1}, Attributes: map[string]string{"a": "b"}}); err != nil || id != "e-1" || published.Attributes["a"] != "b" {
		t.Errorf("Publish = %q, %v of %+v", id, err, published)
	}
	if err := c.Debug(t.Context(), "web", true); err == nil || err.Error() != "web true" {
		t.Errorf("Debug: %v", err)
	}
	fault := fleet.Fault{From: "web", To: "orders", Delay: fleet.Duration(time.Second), Percent: 0.5, Until: at}
	if f, err := c.AddFault(t.Context(), fault); err != nil || f.ID != "f1" || f.Delay != fault.Delay || !f.Until.Equal(at) {
		t.Errorf("AddFault = %+v, %v", f, err)
	}
	if gone, err := c.RemoveFaults(t.Context(), []string{"f1"}, "me"); err != nil || fmt.Sprint(gone) != "[f1 me]" {
		t.Errorf("RemoveFaults = %v, %v", gone, err)
	}
	if vars, err := c.Env(t.Context(), "web"); err != nil || !vars[0].Secret || vars[1].Value != "web" {
		t.Errorf("Env = %+v, %v", vars, err)
	}
	var lines []api.LogLine
	if err := c.Logs(t.Context(), api.LogsRequest{Services: []string{"web"}, Tail: 3}, func(l api.LogLine) { lines = append(lines, l) }); err != nil || lines[0].Text != "3 false" || !lines[0].Time.Equal(at) {
		t.Errorf("Logs = %+v, %v", lines, err)
	}
	if seen, err := c.Learned(t.Context()); err != nil || len(seen) != 2 || seen[0].Entry != "orders" || seen[1].Entry != "orders.placed" {
		t.Errorf("Learned = %+v, %v", seen, err)
	}
}

func TestTapMergesBothProcesses(t *testing.T) {
	tap := func(callee string) func(context.Context, api.TapRequest, func(fleet.Observation) error) error {
		return func(ctx context.Context, _ api.TapRequest, send func(fleet.Observation) error) error {
			if err := send(fleet.Observation{Callee: callee}); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		}
	}
	c := running(t, &api.Server{Process: api.Hub, Tap: tap("events")}, &api.Server{Process: api.Node, Tap: tap("web")})
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(map[string]bool)
	err := c.Tap(ctx, api.TapRequest{}, func(o fleet.Observation) {
		seen[o.Callee] = true
		if len(seen) == 2 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || !seen["web"] || !seen["events"] {
		t.Errorf("saw %v, %v", seen, err)
	}
}

func TestClosingEndsStreamsAndLetsOthersFinish(t *testing.T) {
	began, finish := make(chan struct{}, 2), make(chan struct{})
	hub := &api.Server{
		Process: api.Hub,
		Watch: func(ctx context.Context, _ func(fleet.Status) error) error {
			began <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		},
		Down: func(_ context.Context, send func(fleet.Progress) error) error {
			began <- struct{}{}
			<-finish
			return send(fleet.Progress{Phase: fleet.PhaseDone})
		},
	}
	p := place(t)
	if err := p.Prepare(); err != nil {
		t.Fatal(err)
	}
	stop := serve(t, p.Hub, hub)
	c := api.Dial(p)
	watched, downed := make(chan error, 1), make(chan error, 1)
	go func() { watched <- c.Watch(t.Context(), func(fleet.Status) {}) }()
	phases := make(chan fleet.Phase, 1)
	go func() { downed <- c.Down(t.Context(), func(p fleet.Progress) { phases <- p.Phase }) }()
	<-began
	<-began
	go stop()
	if err := <-watched; err == nil {
		t.Error("a watch went on while its server closed")
	}
	close(finish)
	if err := <-downed; err != nil || <-phases != fleet.PhaseDone {
		t.Errorf("down, under way when the server closed: %v", err)
	}
}

func TestCallStreamsAndNamesItsCaller(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Saw", strings.Join([]string{r.Method, r.Host, r.URL.String(), r.Header.Get("Shoal-From"), r.Header.Get("Shoal-Target"), r.Header.Get("X-Mine")}, "|"))
		w.WriteHeader(http.StatusTeapot)
		w.Write(bytes.ToUpper(b))
	}))
	defer app.Close()
	var callers []string
	node := &api.Server{Process: api.Node, Transport: func(caller string) http.RoundTripper {
		callers = append(callers, caller)
		return &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("tcp", app.Listener.Addr().String())
		}}
	}}
	c := running(t, nil, node)
	for _, from := range []string{"", "orders"} {
		req, _ := http.NewRequest("POST", "http://inventory/items?n=1", strings.NewReader("body"))
		req.Header.Set("X-Mine", "yes")
		res, err := c.Call(from, req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		if got := res.Header.Get("Saw"); res.StatusCode != 418 || string(body) != "BODY" || got != "POST|inventory|/items?n=1|||yes" {
			t.Errorf("from %q: %d %q, the service saw %s", from, res.StatusCode, body, got)
		}
	}
	if !slices.Equal(callers, []string{fleet.Operator, "orders"}) {
		t.Errorf("callers %v", callers)
	}
}

func TestForwardKeepsHalfClose(t *testing.T) {
	app, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	go func() {
		conn, err := app.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		all, _ := io.ReadAll(conn) // to the end that the other side's half-close makes
		conn.Write(append([]byte("got "), all...))
	}()
	node := &api.Server{Process: api.Node, Tunnel: func(_ context.Context, caller, service string, port uint16) (net.Conn, error) {
		if service != "db" || port != 5432 || caller != fleet.Operator {
			return nil, fmt.Errorf("%s is no service of this fleet", service)
		}
		return net.Dial("tcp", app.Addr().String())
	}}
	c := running(t, nil, node)
	conn, err := c.Forward(t.Context(), "db", 5432)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "hello")
	conn.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "got hello" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := c.Forward(t.Context(), "bd", 1); err == nil || err.Error() != "bd is no service of this fleet" {
		t.Errorf("an unknown service: %v", err)
	}
}

func TestExecCarriesEverything(t *testing.T) {
	node := &api.Server{Process: api.Node, Exec: func(ctx context.Context, r api.ExecRequest) (int, error) {
		in, err := io.ReadAll(r.Stdin)
		if err != nil {
			return 0, err
		}
		size, signal := <-r.Resize, <-r.Signals
		fmt.Fprintf(r.Stdout, "%s %v %s %v", r.Service, r.Command, in, size)
		fmt.Fprint(r.Stderr, signal)
		return 7, nil
	}}
	c := running(t, nil, node)
	resize, signals := make(chan api.Size, 1), make(chan string, 1)
	resize <- api.Size{Rows: 24, Columns: 80}
	signals <- "TERM"
	var out, errOut bytes.Buffer
	code, err := c.Exec(t.Context(), api.ExecRequest{
		Service: "web", Command: []string{"cat"}, Stdin: strings.NewReader("in"),
		Stdout: &out, Stderr: &errOut, Resize: resize, Signals: signals,
	})
	if err != nil || code != 7 || out.String() != "web [cat] in {24 80}" || errOut.String() != "TERM" {
		t.Errorf("exec = %d, %v; %q, %q", code, err, &out, &errOut)
	}
}

func TestExecEndsWithItsClient(t *testing.T) {
	ended, began := make(chan struct{}), make(chan struct{})
	node := &api.Server{Process: api.Node, Exec: func(ctx context.Context, _ api.ExecRequest) (int, error) {
		close(began)
		<-ctx.Done()
		close(ended)
		return 0, ctx.Err()
	}}
	c := running(t, nil, node)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, api.ExecRequest{Service: "web", Command: []string{"sleep"}, Stdin: blocked{ctx}})
		failed <- err
	}()
	<-began
	cancel()
	<-ended
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the client got %v", err)
	}
}

// blocked is a terminal at which nobody types.
type blocked struct{ ctx context.Context }

func (b blocked) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, io.EOF }
