package deploy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// world is a node and a data path in memory, which hold the engine to its promises.
type world struct {
	t      *testing.T
	engine *Engine

	mu       sync.Mutex
	rand     *rand.Rand
	table    map[string]fleet.Service
	running  map[string]*copyOf
	used     map[string]bool // every id there ever was
	order    []string        // services, as they first started
	begun    map[string]time.Time
	behave   map[string]string // release -> `exit`, `hang`, `before-fails`
	flaky    bool              // Apply, Start and Stop fail now and then
	progress []fleet.Progress
	requests int
}

// copyOf is an instance on the node.
type copyOf struct {
	assignment fleet.Assignment
	status     fleet.InstanceStatus
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), table: map[string]fleet.Service{},
		running: map[string]*copyOf{}, used: map[string]bool{}, begun: map[string]time.Time{}, behave: map[string]string{}}
	w.engine = w.newEngine()
	return w
}

func (w *world) newEngine() *Engine {
	e, err := New(Config{Node: "n1", Driver: w, Apply: w.apply, Progress: func(p fleet.Progress) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.progress = append(w.progress, p)
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// restart puts a new engine, which knows nothing, in the old one's place.
func (w *world) restart() {
	e := w.newEngine()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.engine = e
}

func (w *world) setFlaky(flaky bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flaky = flaky
}

// run runs the engine while test does, under constant load.
func (w *world) run(test func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		if err := w.engine.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	work.Go(func() { w.load(ctx) })
	test(ctx)
	cancel()
	work.Wait()
}

// load sends a request to each serving endpoint each millisecond; each must find its instance.
func (w *world) load(ctx context.Context) {
	for ctx.Err() == nil {
		w.mu.Lock()
		for _, t := range w.table {
			for _, e := range t.Endpoints {
				if e.State != fleet.Serving || e.Address != "" {
					continue
				}
				w.requests++
				if c := w.running[e.Instance]; c == nil || c.status.State != fleet.Ready {
					w.t.Errorf("a request to %s failed: %+v", e.Instance, c)
					return
				}
			}
		}
		w.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
}

// mishap fails now and then in a flaky world, after having done the work or before.
func (w *world) mishap() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.flaky && w.rand.IntN(5) == 0 {
		return errors.New("the connection to node n1 was lost")
	}
	return nil
}

func (w *world) takes() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(1+w.rand.IntN(30)) * time.Millisecond
}

func (w *world) apply(_ context.Context, c fleet.Change) error {
	time.Sleep(w.takes())
	if err := w.mishap(); err != nil {
		return err
	}
	w.mu.Lock()
	for _, t := range c.Put {
		w.checkTable(t)
		w.table[t.Name] = t
	}
	for _, name := range c.Remove {
		delete(w.table, name)
	}
	w.mu.Unlock()
	return w.mishap()
}

func (w *world) Start(_ context.Context, node string, a fleet.Assignment) error {
	time.Sleep(w.takes())
	if err := w.mishap(); err != nil {
		return err
	}
	w.mu.Lock()
	if w.running[a.Instance] == nil {
		w.checkStart(a)
		status := fleet.InstanceStatus{Instance: a.Instance, Service: a.Service, Worker: a.Worker, Node: node,
			Release: a.Release.ID, State: fleet.Starting, Started: time.Now()}
		w.running[a.Instance] = &copyOf{a, status}
		w.used[a.Instance] = true
		if _, known := w.begun[a.Service]; !known {
			w.begun[a.Service] = time.Now()
			w.order = append(w.order, a.Service)
		}
		delay := time.Duration(1+w.rand.IntN(50)) * time.Millisecond
		time.AfterFunc(delay, func() { w.live(a) })
	}
	w.mu.Unlock()
	return w.mishap()
}

// checkStart holds a first start to what the package promises.
func (w *world) checkStart(a fleet.Assignment) {
	if w.used[a.Instance] {
		w.t.Errorf("the id %s was used twice", a.Instance)
	}
	if !lists(w.table[a.Service], a.Instance) {
		w.t.Errorf("%s started before it was placed: %s", a.Instance, tableText(w.table[a.Service]))
	}
	for id, c := range w.running {
		if c.assignment.Service == a.Service && a.Worker != "" && c.assignment.Worker == a.Worker && c.status.State != fleet.Exited && c.status.State != fleet.Failed {
			w.t.Errorf("%s started while %s ran", a.Instance, id)
		}
	}
}

// checkTable holds a change to what the package promises: what runs is not withdrawn.
func (w *world) checkTable(t fleet.Service) {
	for id, c := range w.running {
		if c.assignment.Service == t.Name && !lists(t, id) {
			w.t.Errorf("%s was withdrawn while it ran: %s", id, tableText(t))
		}
	}
}

func lists(t fleet.Service, instance string) bool {
	return slices.ContainsFunc(t.Endpoints, func(e fleet.Endpoint) bool { return e.Instance == instance })
}

// live is what becomes of a started instance.
func (w *world) live(a fleet.Assignment) {
	behaviour := w.behave[a.Release.ID]
	switch {
	case a.Once && behaviour == "before-fails":
		w.become(a.Instance, fleet.Failed, "exited with code 1 after 3 ms")
	case a.Once:
		w.become(a.Instance, fleet.Exited, "")
	case behaviour == "exit":
		w.become(a.Instance, fleet.Failed, "exited with code 3 after 12 ms")
	case behaviour == "hang":
	default:
		w.become(a.Instance, fleet.Ready, "")
	}
}

func (w *world) become(id string, state fleet.InstanceState, failure string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.running[id]
	if c == nil || c.status.State == fleet.Stopping {
		return
	}
	c.status.State, c.status.Failure = state, failure
	if failure != "" {
		c.status.LastLog = []string{"listen: address in use"}
	}
	w.engine.Observe(c.status)
}

func (w *world) Stop(_ context.Context, _, id string) error {
	if err := w.mishap(); err != nil {
		return err
	}
	w.mu.Lock()
	if c := w.running[id]; c != nil {
		c.status.State = fleet.Stopping
		w.engine.Observe(c.status)
	}
	w.mu.Unlock()
	time.Sleep(w.takes())
	w.mu.Lock()
	if c := w.running[id]; c != nil {
		delete(w.running, id)
		c.status.State = fleet.Exited
		w.engine.Observe(c.status)
	}
	w.mu.Unlock()
	return w.mishap()
}

func (w *world) Probe(_ context.Context, _, id string) (fleet.InstanceStatus, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.running[id]; c != nil {
		return c.status, nil
	}
	return fleet.InstanceStatus{Instance: id, State: fleet.Exited}, nil
}

// statuses returns what the node runs.
func (w *world) statuses() []fleet.InstanceStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []fleet.InstanceStatus
	for _, c := range w.running {
		all = append(all, c.status)
	}
	return all
}

func (w *world) snapshot() *fleet.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &fleet.Snapshot{}
	for _, t := range w.table {
		s.Services = append(s.Services, &t)
	}
	return s
}

// serving returns the releases that serve a service, one for each endpoint.
func (w *world) serving(service string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, e := range w.table[service].Endpoints {
		if e.State == fleet.Serving {
			all = append(all, e.Release+e.Address)
		}
	}
	return strings.Join(all, " ")
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func targets(text string) []Target { return parseTargets(strings.Fields(text)) }

func (w *world) states() string {
	var text string
	for _, s := range w.engine.Status() {
		text += fmt.Sprintf("%s=%s ", s.Name, s.State)
	}
	return strings.TrimSpace(text)
}
