package control_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/control"
	"github.com/shoalrun/shoal/fleet"
)

// memory is a Store that lives as long as a test, and can fail.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	puts   int // left before Put fails; negative: no limit
	most   int // bytes of the largest value
}

func newMemory() *memory { return &memory{values: make(map[string][]byte), puts: -1} }

var errFull = errors.New("no space left")

func (m *memory) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[key], nil
}

func (m *memory) Put(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.puts == 0 {
		return errFull
	}
	m.puts--
	m.most = max(m.most, len(value))
	m.values[key] = slices.Clone(value)
	return nil
}

func (m *memory) Watch(_ context.Context, prefix string, each func(string, []byte) error) error {
	m.mu.Lock()
	values := maps.Clone(m.values)
	m.mu.Unlock()
	for key, value := range values {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		if err := each(key, value); err != nil {
			return err
		}
	}
	return each("", nil)
}

func open(t *testing.T, s control.Store) *control.Control {
	t.Helper()
	c, err := control.New(control.Config{Store: s, Fleet: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func service(name string, endpoints ...string) fleet.Service {
	s := fleet.Service{Name: name, Deployed: true, Manifest: fleet.Manifest{Service: name, Ports: []fleet.Port{{Number: 8080, Protocol: fleet.HTTP}}}}
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, fleet.Endpoint{Instance: e, Node: "local"})
	}
	return s
}

func apply(t *testing.T, c *control.Control, change fleet.Change) uint64 {
	t.Helper()
	v, err := c.Apply(t.Context(), change)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func put(services ...fleet.Service) fleet.Change { return fleet.Change{Reason: "test", Put: services} }

// summary writes a snapshot in a line.
func summary(s *fleet.Snapshot) string {
	out := fmt.Sprintf("v%d", s.Version)
	for _, s := range s.Services {
		out += fmt.Sprintf(" %s@%d#%d", s.Name, s.Version, s.Index)
		for _, e := range s.Endpoints {
			out += "," + e.Instance
		}
	}
	return out
}

func expect(t *testing.T, c *control.Control, want string) {
	t.Helper()
	if got := summary(c.Snapshot()); got != want {
		t.Errorf("snapshot %q, want %q", got, want)
	}
}

func TestApplyAndRestart(t *testing.T) {
	m := newMemory()
	c := open(t, m)
	expect(t, c, "v0")
	apply(t, c, put(service("web"), service("api", "api-1")))
	expect(t, c, "v1 api@1#17,api-1 web@1#16")
	if v := apply(t, c, put(service("web"))); v != 1 {
		t.Errorf("a change of nothing made version %d", v)
	}
	apply(t, c, put(service("api", "api-1", "api-2")))
	apply(t, c, fleet.Change{Reason: "away", Remove: []string{"web", "ghost"}})
	apply(t, c, put(service("db")))
	expect(t, c, "v4 api@2#17,api-1,api-2 db@4#18")

	c = open(t, m)
	expect(t, c, "v4 api@2#17,api-1,api-2 db@4#18")
	apply(t, c, put(service("web")))
	expect(t, c, "v5 api@2#17,api-1,api-2 db@4#18 web@5#16")
	h := c.History()
	if len(h) != 5 || h[2].Reason != "away" || h[2].Version != 3 || h[2].Remove[0] != "web" || h[4].Put[0] != "web" || h[0].Time.IsZero() {
		t.Errorf("history %+v", h)
	}
	if _, err := control.New(control.Config{Store: m, Fleet: "farm"}); err == nil || !strings.Contains(err.Error(), `"shop"`) {
		t.Errorf("another fleet's folder: %v", err)
	}
}

// TestCrashAtEveryPut fails the store after every number of writes, as a crash would, and restarts:
// a change is whole, or it is not there; what was applied is there.
func TestCrashAtEveryPut(t *testing.T) {
	var many []fleet.Service
	for i := range 5 {
		s := service(fmt.Sprintf("s%d", i), fmt.Sprintf("s%d-1", i))
		s.Manifest.Owner = strings.Repeat("x", 100<<10) // so that the change is in parts
		many = append(many, s)
	}
	for puts := range 20 {
		m := newMemory()
		c := open(t, m)
		apply(t, c, put(service("s0"), service("s4")))
		before := summary(c.Snapshot())
		m.puts = puts
		_, err := c.Apply(t.Context(), fleet.Change{Reason: "many", Put: many[:4], Remove: []string{"s4"}})
		running := summary(c.Snapshot())
		if err != nil && running != before {
			t.Fatalf("%d puts: failed with %v, and yet the snapshot is %s", puts, err, running)
		}
		m.puts = -1
		again := open(t, m)
		after := summary(again.Snapshot())
		if err == nil && after != running || err != nil && after != before && !strings.HasPrefix(after, "v2 s0@2#16,s0-1 s1@2#18,s1-1 s2@2#19,s2-1 s3@2#20,s3-1") {
			t.Fatalf("%d puts: Apply %v, before %s, running %s, after the restart %s", puts, err, before, running, after)
		}
		apply(t, again, put(service("more")))
		apply(t, c, put(service("more")))
	}
}

func TestRefusedChanges(t *testing.T) {
	c := open(t, newMemory())
	apply(t, c, put(service("api", "api-1")))
	wrongName, wrongPort, wrongState, both, badAddress := service("a"), service("a"), service("a", "a-1"), service("a", "a-1"), service("a")
	wrongName.Manifest.Service = "b"
	wrongPort.Manifest.Ports = append(wrongPort.Manifest.Ports, wrongPort.Manifest.Ports[0])
	wrongState.Endpoints[0].State = "odd"
	both.Endpoints[0].Address = "localhost:1"
	badAddress.Endpoints = []fleet.Endpoint{{Instance: "x", Address: "localhost"}}
	tests := map[string]fleet.Change{
		"reserved":              put(service("events")),
		"not a DNS label":       put(service("Orders")),
		"in the change twice":   put(service("a"), service("a")),
		"put and removed":       {Put: []fleet.Service{service("a")}, Remove: []string{"a"}},
		`names it "b"`:          put(wrongName),
		"listed twice":          put(wrongPort),
		"unknown state":         put(wrongState),
		"and not both":          put(both),
		"is not HOST:PORT":      put(badAddress),
		"no instance id":        put(service("a", "")),
		"of api and of b":       put(service("b", "api-1")),
		`"a": endpoint a-1 has`: put(wrongState, service("ok")),
	}
	for want, change := range tests {
		_, err := c.Apply(t.Context(), change)
		if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "of b and of api", "of api and of b"), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	expect(t, c, "v1 api@1#16,api-1")
	apply(t, c, fleet.Change{Put: []fleet.Service{service("b", "api-1")}, Remove: []string{"api"}})
}

func TestSnapshotsAreNotShared(t *testing.T) {
	c := open(t, newMemory())
	s := service("api", "api-1")
	apply(t, c, put(s))
	s.Endpoints[0].Instance = "changed"
	expect(t, c, "v1 api@1#16,api-1")
}

// TestTenThousandServices checks that no message grows with the fleet.
func TestTenThousandServices(t *testing.T) {
	m := newMemory()
	c := open(t, m)
	var all []fleet.Service
	for i := range 10_000 {
		all = append(all, service(fmt.Sprintf("s%d", i), fmt.Sprintf("s%d-1", i)))
	}
	apply(t, c, put(all...))
	if m.most > 1<<20 {
		t.Errorf("the largest value has %d bytes", m.most)
	}
	again := open(t, m)
	if got, want := summary(again.Snapshot()), summary(c.Snapshot()); got != want || len(again.Snapshot().Services) != 10_000 {
		t.Error("another snapshot after the restart")
	}
}

func TestWatch(t *testing.T) {
	c := open(t, newMemory())
	apply(t, c, put(service("api"), service("web")))
	told := make(chan string)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Watch(ctx, func(s *fleet.Snapshot, changed []*fleet.Service, removed []string) {
			var names []string
			for _, s := range changed {
				names = append(names, s.Name)
			}
			select {
			case told <- fmt.Sprintf("v%d %v %v", s.Version, names, removed):
			case <-ctx.Done():
			}
		})
	}()
	if got := <-told; got != "v1 [api web] []" {
		t.Errorf("first %q", got)
	}
	apply(t, c, put(service("web", "web-1")))
	if got := <-told; got != "v2 [web] []" {
		t.Errorf("then %q", got)
	}
	apply(t, c, fleet.Change{Put: []fleet.Service{service("db")}, Remove: []string{"api"}})
	if got := <-told; got != "v3 [db] [api]" {
		t.Errorf("then %q", got)
	}
	cancel()
	<-ended
}

func TestAcked(t *testing.T) {
	c := open(t, newMemory())
	if err := c.Acked(t.Context(), 7); err != nil {
		t.Errorf("without nodes: %v", err)
	}
	c.Join("a")
	c.Join("b")
	c.Ack("a", 7)
	c.Ack("ghost", 9)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := c.Acked(ctx, 7); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "b (at 0)") || strings.Contains(err.Error(), "a (") {
		t.Errorf("one is behind: %v", err)
	}
	done := make(chan error, 2)
	go func() { done <- c.Acked(t.Context(), 7) }()
	c.Ack("b", 8)
	c.Ack("b", 3)
	if err := <-done; err != nil {
		t.Error(err)
	}
	go func() { done <- c.Acked(t.Context(), 9) }()
	c.Ack("a", 9)
	c.Leave("b")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := c.Nodes(); len(got) != 1 || got["a"] != 9 {
		t.Errorf("nodes %v", got)
	}
	c.Join("a")
	if got := c.Nodes()["a"]; got != 0 {
		t.Errorf("a node that joined again is at %d", got)
	}
}

func TestConcurrentApplies(t *testing.T) {
	c := open(t, newMemory())
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if _, err := c.Apply(context.Background(), put(service(fmt.Sprintf("s%d", i)))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	indexes := make(map[uint16]bool)
	for _, s := range c.Snapshot().Services {
		indexes[s.Index] = true
	}
	if len(indexes) != 32 || c.Snapshot().Version != 32 {
		t.Errorf("%s", summary(c.Snapshot()))
	}
}

// Faults are the operator's: what deploy puts neither has nor loses them.
func TestFaults(t *testing.T) {
	m := newMemory()
	c := open(t, m)
	apply(t, c, put(service("api"), service("web")))
	faults := func(ids ...string) map[string][]fleet.Fault {
		var all []fleet.Fault
		for _, id := range ids {
			all = append(all, fleet.Fault{ID: id, From: "web", To: "api", Abort: 503, Until: time.Now().Add(time.Hour)})
		}
		return map[string][]fleet.Fault{"api": all}
	}
	want := func(n int, version uint64) {
		t.Helper()
		s := c.Snapshot()
		if got := s.Faults(time.Now()); len(got) != n || s.Version != version {
			t.Errorf("version %d, faults %+v", s.Version, got)
		}
	}
	apply(t, c, fleet.Change{Reason: "fault", Faults: faults("f1", "f2")})
	want(2, 2)
	with := service("api", "api-1")
	with.Faults = faults("ignored")["api"]
	apply(t, c, put(with))
	want(2, 3)
	c = open(t, m)
	want(2, 3)
	if got := c.Snapshot().Faults(time.Now().Add(2 * time.Hour)); len(got) != 0 {
		t.Errorf("after their end: %+v", got)
	}
	apply(t, c, fleet.Change{Reason: "both", Put: []fleet.Service{service("api")}, Faults: faults("f3")})
	want(1, 4)
	apply(t, c, fleet.Change{Reason: "none", Faults: faults()})
	want(0, 5)
	if _, err := c.Apply(t.Context(), fleet.Change{Faults: map[string][]fleet.Fault{"ghost": nil}}); err == nil || !strings.Contains(err.Error(), `"ghost"`) {
		t.Errorf("of nobody: %v", err)
	}
	apply(t, c, fleet.Change{Reason: "fault", Faults: faults("f4")})
	apply(t, c, fleet.Change{Remove: []string{"api"}})
	apply(t, c, put(service("api")))
	want(0, 8)
}
