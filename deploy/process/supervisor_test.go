//go:build unix

package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

func TestHealthGates(t *testing.T) {
	tests := []struct {
		name, command string
		health        fleet.Health
		ready         bool
		failure       string
	}{
		{"a connection", "app http", fleet.Health{}, true, ""},
		{"HTTP", "app http", fleet.Health{Method: "GET", Path: "/healthz"}, true, ""},
		{"HEAD", "app http", fleet.Health{Method: "HEAD", Path: "/healthz", Port: 8080}, true, ""},
		{"gRPC", "app grpc", fleet.Health{GRPC: true}, true, ""},
		{"runs on", "sleep 600", fleet.Health{}, true, ""},
		{"HTTP that is sick", "app http", fleet.Health{Method: "GET", Path: "/sick"}, false,
			"did not answer GET /sick on port 8080 within 1.5 s; last: it answered 503"},
		{"gRPC without the service", "app grpc-without-health", fleet.Health{GRPC: true}, false, "register it"},
		{"another port", "app http", fleet.Health{Port: 9999}, false, "a connection on port 9999 within 1.5 s; last: connection refused"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			n := start(t, m, t.TempDir(), nil, func(c *Config) {
				if !test.ready {
					c.Launch = m.launchListening
				}
			})
			a := assignment("orders-aaaaaa-1", test.command)
			a.Manifest.Health = test.health
			if !test.ready {
				a.HealthTimeout = fleet.Duration(1500 * time.Millisecond)
			}
			if err := n.Start(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if test.ready {
				if s := n.until(a.Instance, fleet.Ready); s.PID == 0 || s.Started.IsZero() || s.Failure != "" {
					t.Errorf("ready as %+v", s)
				}
				return
			}
			s := n.until(a.Instance, fleet.Failed)
			if !strings.Contains(s.Failure, test.failure) || len(s.LastLog) == 0 {
				t.Errorf("failure is %q with log %q, want %q", s.Failure, s.LastLog, test.failure)
			}
			if runtime.GOOS == "linux" && !strings.Contains(s.Failure, "; it listens on ") {
				t.Errorf("%q does not say where it listens", s.Failure)
			}
		})
	}
}

func TestExitsAtOnce(t *testing.T) {
	m := newMachine(t)
	n := start(t, m, t.TempDir(), nil, func(c *Config) { c.Attempts = 3 })
	a := broken("orders-aaaaaa-1", "echo no such table; exit 3")
	a.Release.Ignored = []string{".env", "local.json"}
	if err := n.Start(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	s := n.until(a.Instance, fleet.Failed)
	for _, want := range []string{"exited with code 3 after ", "git ignores: .env, local.json", "last of 3 starts"} {
		if !strings.Contains(s.Failure, want) {
			t.Errorf("failure %q lacks %q", s.Failure, want)
		}
	}
	if s.ExitCode != 3 || len(s.LastLog) != 1 || s.LastLog[0] != "no such table" {
		t.Errorf("given up as %+v", s)
	}
	if _, starts := m.pid(a.Instance); starts != 3 {
		t.Errorf("was started %d times", starts)
	}
	if err := n.Stop(t.Context(), a.Instance); err != nil || len(n.Statuses()) != 0 {
		t.Error("a failed instance was not forgotten:", err, n.Statuses())
	}
}

func TestCrashIsRestarted(t *testing.T) {
	m := newMachine(t)
	n := start(t, m, t.TempDir(), nil, func(c *Config) { c.Attempts = 1 })
	a := assignment("orders-aaaaaa-1", "app http")
	if err := n.Start(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	for crash := 1; crash <= 3; crash++ {
		s := n.until(a.Instance, fleet.Ready)
		if s.Restarts != crash-1 || s.Failure != "" {
			t.Fatalf("before crash %d: %+v", crash, s)
		}
		if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if s := n.until(a.Instance, fleet.Crashed); !strings.HasPrefix(s.Failure, "killed by SIGKILL after ") {
			t.Fatalf("crashed with %q", s.Failure)
		}
	}
	n.until(a.Instance, fleet.Ready)
}

func TestStopDrainsThenKills(t *testing.T) {
	m := newMachine(t)
	dir := t.TempDir()
	n := start(t, m, dir, nil, nil)
	a := assignment("orders-aaaaaa-1", "app stubborn")
	a.Grace = fleet.Duration(100 * time.Millisecond)
	if err := n.Start(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	s := n.until(a.Instance, fleet.Ready)
	stops := make(chan error, 2)
	for range 2 { // asking twice waits for the same end
		go func() { stops <- n.Stop(context.Background(), a.Instance) }()
	}
	for range 2 {
		if err := <-stops; err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(s.PID, 0); err == nil {
		t.Error("it still runs")
	}
	n.until(a.Instance, fleet.Exited)
	if len(m.drained) != 1 {
		t.Errorf("drained %q", m.drained)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 0 {
		t.Errorf("left behind: %q", files)
	}
	if err := n.Stop(t.Context(), "nobody-1"); err != nil {
		t.Error("stopping what is not there:", err)
	}
	if s, err := n.Probe(t.Context(), a.Instance); err != nil || s.State != fleet.Exited {
		t.Error("a probe of what is gone says", s.State, err)
	}
}

func TestStopAllInAnyState(t *testing.T) {
	m := newMachine(t)
	n := start(t, m, t.TempDir(), nil, nil)
	hung := assignment("orders-aaaaaa-2", "app http") // starts for ever
	hung.Manifest.Health.Port = 9999
	all := []fleet.Assignment{assignment("orders-aaaaaa-1", "app http"), hung,
		broken("orders-aaaaaa-3", "exit 1"), assignment("orders-aaaaaa-4", "app stubborn")}
	all[3].Grace = fleet.Duration(50 * time.Millisecond)
	for _, a := range all {
		if err := n.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	n.until("orders-aaaaaa-1", fleet.Ready)
	n.until("orders-aaaaaa-3", fleet.Crashed)
	if err := n.StopAll(t.Context()); err != nil || len(n.Statuses()) != 0 {
		t.Fatal("after StopAll there are", n.Statuses(), err)
	}
	if len(m.drained) != 0 {
		t.Errorf("StopAll drained %q", m.drained)
	}
	if err := n.Start(t.Context(), all[0]); err == nil {
		t.Error("an instance was started after StopAll")
	}
}

func TestOnce(t *testing.T) {
	n := start(t, newMachine(t), t.TempDir(), nil, nil)
	for instance, command := range map[string]string{"orders-aaaaaa-1": "exit 0", "orders-aaaaaa-2": "echo locked; exit 4"} {
		a := assignment(instance, command)
		a.Once = true
		if err := n.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	n.until("orders-aaaaaa-1", fleet.Exited)
	s := n.until("orders-aaaaaa-2", fleet.Failed)
	if s.ExitCode != 4 || len(s.LastLog) != 1 || !strings.HasPrefix(s.Failure, "exited with code 4 after ") || s.Restarts != 0 {
		t.Errorf("failed as %+v", s)
	}
}

func TestSecrets(t *testing.T) {
	m := newMachine(t)
	var asked atomic.Int32
	n := start(t, m, t.TempDir(), nil, func(c *Config) {
		c.Secrets = func(_ context.Context, refs []string) (map[string]string, error) {
			if asked.Add(1) < 3 {
				return nil, errors.New("op read: not signed in")
			}
			return map[string]string{"orders/key": "hush"}, nil
		}
	})
	a := assignment("orders-aaaaaa-1", `test ${#KEY} = 4 && sleep 600`)
	a.Env = []fleet.EnvVar{{Name: "KEY", Secret: "orders/key"}, {Name: "PLAIN", Value: "x"}}
	if err := n.Start(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if s := n.until(a.Instance, fleet.Crashed); s.Failure != "secrets could not be resolved: op read: not signed in" {
		t.Errorf("failure is %q", s.Failure)
	}
	n.until(a.Instance, fleet.Ready)
	if got := m.specs[0]; len(got.Redact) != 1 || got.Redact[0] != "hush" || len(got.Env) != 2 {
		t.Errorf("launched with %+v", got)
	}
	files, _ := filepath.Glob(filepath.Join(n.config.Dir, "*.json"))
	text, err := os.ReadFile(files[0])
	if err != nil || strings.Contains(string(text), "hush") {
		t.Errorf("the assignment on disk is %s %v", text, err)
	}
	a = assignment("orders-aaaaaa-2", "sleep 600")
	a.Env = []fleet.EnvVar{{Name: "KEY", Secret: "orders/other"}}
	if err := n.Start(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if s := n.until(a.Instance, fleet.Failed); !strings.HasPrefix(s.Failure, "secret orders/other was not found") {
		t.Errorf("failure is %q", s.Failure)
	}
}

// TestNodeIsReplaced ends the supervisor under running instances and starts another one.
func TestNodeIsReplaced(t *testing.T) {
	m := newMachine(t)
	dir := t.TempDir()
	n := start(t, m, dir, nil, func(c *Config) { c.Attempts = 1 })
	job := assignment("orders-aaaaaa-4", "sleep 600")
	job.Once = true
	all := []fleet.Assignment{assignment("orders-aaaaaa-1", "app http"), assignment("orders-aaaaaa-2", "app http"),
		broken("orders-aaaaaa-3", "exit 1"), job}
	for _, a := range all {
		if err := n.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	first := n.until("orders-aaaaaa-1", fleet.Ready)
	second := n.until("orders-aaaaaa-2", fleet.Ready)
	n.until("orders-aaaaaa-3", fleet.Failed)
	n.leave()
	for _, pid := range []int{second.PID, m.running[job.Instance].PID()} {
		if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "torn-bbbbbb-1.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	n = start(t, m, dir, []Running{{all[0], m.running[all[0].Instance]}}, nil)
	if s := n.until("orders-aaaaaa-1", fleet.Ready); s.PID != first.PID || s.Restarts != 0 || !s.Started.Equal(first.Started) {
		t.Errorf("adopted as %+v, was %+v", s, first)
	}
	if s := n.until("orders-aaaaaa-2", fleet.Ready); s.PID == second.PID || s.Restarts != 1 {
		t.Errorf("restarted as %+v", s)
	}
	if s := n.until("orders-aaaaaa-3", fleet.Failed); s.ExitCode != 1 {
		t.Errorf("what was given up came back as %+v", s)
	}
	if s := n.until(job.Instance, fleet.Failed); !strings.Contains(s.Failure, "while the node was away") {
		t.Errorf("the job came back as %+v", s)
	}
	if len(n.Statuses()) != 4 {
		t.Errorf("statuses are %+v", n.Statuses())
	}
	if err := n.Stop(t.Context(), "orders-aaaaaa-1"); err != nil || syscall.Kill(first.PID, 0) == nil {
		t.Error("an adopted instance was not stopped:", err)
	}
}

func TestDebugSuspendsRestarts(t *testing.T) {
	m := newMachine(t)
	n := start(t, m, t.TempDir(), nil, func(c *Config) { c.Attempts = 1 })
	a := assignment("orders-aaaaaa-1", "app http")
	a.Debug = true
	if err := n.Start(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	s := n.until(a.Instance, fleet.Ready)
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.until(a.Instance, fleet.Crashed)
	a.Debug = false
	if err := n.Start(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if s := n.until(a.Instance, fleet.Ready); s.Restarts != 1 {
		t.Errorf("after debugging: %+v", s)
	}
}

func TestBadAssignments(t *testing.T) {
	n := start(t, newMachine(t), t.TempDir(), nil, nil)
	for _, id := range []string{"", "../evil", "a/b", ".hidden"} {
		if err := n.Start(t.Context(), assignment(id, "true")); err == nil {
			t.Errorf("an instance was named %q", id)
		}
	}
	if _, err := New(Config{Dir: t.TempDir()}); err == nil {
		t.Error("a supervisor without seams was made")
	}
	if err := os.RemoveAll(n.config.Dir); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context(), assignment("orders-aaaaaa-1", "true")); err == nil || len(n.Statuses()) != 0 {
		t.Error("started what cannot be kept:", err, n.Statuses())
	}
}
