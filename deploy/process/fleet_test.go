//go:build unix

package process

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/deploy"
	"github.com/shoalrun/shoal/fleet"
)

// path is a data path: the newest table of a service, and the exchanges that are open.
type path struct {
	m *machine

	mu     sync.Mutex
	table  fleet.Service
	open   map[string]int // by instance
	closed *sync.Cond     // signals that an exchange ended
	asked  int
}

func newPath(m *machine) *path {
	p := &path{m: m, open: map[string]int{}}
	p.closed = sync.NewCond(&p.mu)
	return p
}

func (p *path) apply(_ context.Context, c fleet.Change) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range c.Put {
		p.table = t
	}
	return nil
}

// drain returns when the instance has no open exchange.
func (p *path) drain(_ context.Context, instance string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.open[instance] > 0 {
		p.closed.Wait()
	}
	return nil
}

// call makes one exchange with a serving instance; nothing serves before the first start.
func (p *path) call() error {
	p.mu.Lock()
	instance := ""
	for _, e := range p.table.Endpoints {
		if e.State == fleet.Serving {
			instance = e.Instance
		}
	}
	if instance == "" && p.asked == 0 {
		p.mu.Unlock()
		return nil
	}
	p.open[instance]++
	p.asked++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.open[instance]--
		p.closed.Broadcast()
	}()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return p.m.dial(ctx, instance, 8080) }
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := client.Get("http://orders/healthz")
	if err != nil {
		return fmt.Errorf("%s: %w", instance, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", instance, resp.Status)
	}
	return nil
}

// oneNode is a driver of the only node that there is.
type oneNode struct{ *Supervisor }

func (o oneNode) Start(ctx context.Context, _ string, a fleet.Assignment) error {
	return o.Supervisor.Start(ctx, a)
}

func (o oneNode) Stop(ctx context.Context, _, instance string) error {
	return o.Supervisor.Stop(ctx, instance)
}

func (o oneNode) Probe(ctx context.Context, _, instance string) (fleet.InstanceStatus, error) {
	return o.Supervisor.Probe(ctx, instance)
}

// TestNoRequestFails drives real processes through updates, restarts and failures by the engine, under
// constant load.
func TestNoRequestFails(t *testing.T) {
	m := newMachine(t)
	p := newPath(m)
	var engine *deploy.Engine
	n := start(t, m, t.TempDir(), nil, func(c *Config) {
		c.Drain, c.Attempts = p.drain, 1
		c.Report = func(s fleet.InstanceStatus) { engine.Observe(s) }
	})
	var err error
	engine, err = deploy.New(deploy.Config{Node: "n1", Driver: oneNode{n.Supervisor}, Apply: p.apply})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { _ = engine.Run(ctx) })
	work.Go(func() {
		for ctx.Err() == nil {
			if err := p.call(); err != nil {
				t.Error("a request failed:", err)
			}
		}
	})
	rollOut(t, engine)
	cancel()
	work.Wait()
	if p.asked == 0 {
		t.Error("nothing was asked")
	}
}

// target is a release of the test application; what is broken exits when it starts.
func target(release string, instances int, broken bool) deploy.Target {
	a := assignment("", "app http")
	t := deploy.Target{Manifest: a.Manifest, Run: a.Command, Env: a.Env, Instances: instances,
		Release: fleet.Release{ID: release}, Before: "exit 0", Workers: map[string]string{"clock": "sleep 600"}}
	t.Manifest.Service = "orders"
	t.Manifest.Health = fleet.Health{Method: "GET", Path: "/healthz"}
	if broken {
		t.Run = "echo no such table; exit 3"
	}
	return t
}

func rollOut(t *testing.T, e *deploy.Engine) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(e.Set(ctx, []deploy.Target{target("aaaaaa", 1, false)}))
	must(e.Wait(ctx, nil))
	must(e.Update(ctx, target("bbbbbb", 2, false)))
	must(e.Wait(ctx, nil))
	must(e.Update(ctx, target("cccccc", 2, true)))
	if err := e.Wait(ctx, nil); err == nil || !strings.Contains(err.Error(), "bbbbbb serves on: exited with code 3") ||
		!strings.Contains(err.Error(), "no such table") {
		t.Error("after a broken release Wait says", err)
	}
	must(e.Update(ctx, target("dddddd", 1, false)))
	must(e.Restart(ctx, []string{"orders"}))
	must(e.Wait(ctx, nil))
	status := e.Status()[0]
	if status.State != fleet.ServiceReady || status.Release != "dddddd" || len(status.Instances) != 2 || status.Failure != "" {
		t.Errorf("at last it is %+v", status)
	}
}
