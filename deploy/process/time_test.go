package process

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// program is an application in memory, for tests in synctest's time.
type program struct {
	mu     sync.Mutex
	up     bool // accepts connections
	dials  int
	starts []time.Time
	done   chan struct{}
	stops  int // Stop fails until this many were asked for
	asked  int
	told   []fleet.InstanceStatus
}

func (p *program) launch(context.Context, Spec) (Process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts = append(p.starts, time.Now())
	p.done = make(chan struct{})
	return p, nil
}

func (p *program) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

func (p *program) Exit() (int, string) { return 1, "" }

func (p *program) Stop(context.Context, time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked++; p.asked < p.stops {
		return errors.New("the kernel is busy")
	}
	close(p.done)
	return nil
}

func (p *program) dial(context.Context, string, uint16) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dials++
	if !p.up {
		return nil, syscall.ECONNREFUSED
	}
	c, s := net.Pipe()
	return c, s.Close()
}

func (p *program) report(s fleet.InstanceStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, s)
}

func (p *program) setUp(up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up = up
}

// count returns how often it was started, dialed and asked to stop.
func (p *program) count() (starts, dials, asked int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.starts), p.dials, p.asked
}

func (p *program) crash() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.done)
}

// inTime runs a test in synctest's time with a supervisor of p.
func inTime(t *testing.T, p *program, change func(*Config), test func(*testing.T, *Supervisor)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := Config{Node: "n1", Dir: dir, Launch: p.launch, Dial: p.dial, Report: p.report}
		if change != nil {
			change(&c)
		}
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		test(t, s)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func starts(p *program) int {
	n, _, _ := p.count()
	return n
}

func ported(id string) fleet.Assignment {
	a := fleet.Assignment{Instance: id, Service: "orders", Command: "serve"}
	a.Manifest.Ports = []fleet.Port{{Number: 8080, Protocol: fleet.HTTP}}
	return a
}

func state(t *testing.T, s *Supervisor, id string) fleet.InstanceStatus {
	t.Helper()
	synctest.Wait()
	status, err := s.Probe(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func begin(t *testing.T, s *Supervisor, a fleet.Assignment) {
	t.Helper()
	if err := s.Start(t.Context(), a); err != nil {
		t.Fatal(err)
	}
}

func TestBackoff(t *testing.T) {
	p := &program{up: true}
	inTime(t, p, nil, func(t *testing.T, s *Supervisor) {
		begin(t, s, ported("a-1"))
		for range 11 {
			if got := state(t, s, "a-1"); got.State != fleet.Ready {
				t.Fatalf("it is %s: %s", got.State, got.Failure)
			}
			p.crash()
			synctest.Wait()
			for before, now := starts(p), 0; now <= before; now = starts(p) {
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
			}
		}
		var waits []string
		for i := 1; i < len(p.starts); i++ {
			waits = append(waits, p.starts[i].Sub(p.starts[i-1]).String())
		}
		const want = "100ms 200ms 400ms 800ms 1.6s 3.2s 6.4s 12.8s 25.6s 30s 30s"
		if got := strings.Join(waits, " "); got != want {
			t.Errorf("waits are %s, want %s", got, want)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		p.crash()
		before := starts(p)
		time.Sleep(firstWait)
		synctest.Wait()
		if starts(p) != before+1 {
			t.Error("after a minute in health the wait is not the first one again")
		}
	})
}

func TestUnhealthyAfterThree(t *testing.T) {
	p := &program{up: true}
	inTime(t, p, nil, func(t *testing.T, s *Supervisor) {
		begin(t, s, ported("a-1"))
		state(t, s, "a-1")
		for _, step := range []struct {
			up   bool
			want fleet.InstanceState
		}{{true, fleet.Ready}, {false, fleet.Ready}, {false, fleet.Ready}, {true, fleet.Ready}, {false, fleet.Ready},
			{false, fleet.Ready}, {false, fleet.Unhealthy}, {false, fleet.Unhealthy}, {true, fleet.Ready}} {
			p.setUp(step.up)
			time.Sleep(probeInterval)
			got := state(t, s, "a-1")
			if got.State != step.want || (got.Failure != "") != (step.want == fleet.Unhealthy) {
				t.Fatalf("%+v: it is %s: %q", step, got.State, got.Failure)
			}
		}
	})
}

func TestNeverHealthy(t *testing.T) {
	p := &program{}
	inTime(t, p, nil, func(t *testing.T, s *Supervisor) {
		begin(t, s, ported("a-1"))
		time.Sleep(59 * time.Second)
		if got := state(t, s, "a-1"); got.State != fleet.Starting {
			t.Fatalf("within its time it is %s", got.State)
		}
		time.Sleep(2 * time.Second)
		got := state(t, s, "a-1")
		if got.State != fleet.Failed || got.Failure != "did not answer a connection on port 8080 within 60 s; last: connection refused" {
			t.Fatalf("it is %s: %s", got.State, got.Failure)
		}
		if _, _, asked := p.count(); asked != 1 {
			t.Error("it was left running")
		}
	})
}

func TestDebugHasNoDeadline(t *testing.T) {
	p := &program{}
	inTime(t, p, nil, func(t *testing.T, s *Supervisor) {
		a := ported("a-1")
		a.Debug = true
		begin(t, s, a)
		time.Sleep(time.Hour)
		if got := state(t, s, "a-1"); got.State != fleet.Starting {
			t.Fatalf("on a breakpoint it is %s: %s", got.State, got.Failure)
		}
		p.setUp(true)
		time.Sleep(time.Second)
		state(t, s, "a-1")
		p.setUp(false)
		time.Sleep(time.Hour)
		if got := state(t, s, "a-1"); got.State != fleet.Ready {
			t.Fatalf("on a breakpoint it is %s: %s", got.State, got.Failure)
		}
	})
}

func TestProbesAreQuickAtFirst(t *testing.T) {
	p := &program{}
	inTime(t, p, nil, func(t *testing.T, s *Supervisor) {
		begin(t, s, ported("a-1"))
		time.Sleep(205 * time.Millisecond)
		synctest.Wait()
		_, early, _ := p.count()
		if early < 15 {
			t.Errorf("%d probes in the first 200 ms", early)
		}
		time.Sleep(50 * time.Second)
		synctest.Wait()
		if _, all, _ := p.count(); all-early > 300 {
			t.Errorf("%d probes in the following 50 s", all-early)
		}
	})
}

func TestStopIsRepeatedAndDrainEnds(t *testing.T) {
	p := &program{up: true, stops: 3}
	stuck := func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	inTime(t, p, func(c *Config) { c.Drain = stuck }, func(t *testing.T, s *Supervisor) {
		begin(t, s, ported("a-1"))
		state(t, s, "a-1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Stop(ctx, "a-1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error("Stop outlived its context:", err)
		}
		time.Sleep(10 * time.Second)
		got := state(t, s, "a-1")
		if _, _, asked := p.count(); got.State != fleet.Exited || asked != 3 {
			t.Errorf("after the drain's end it is %s, asked %d times", got.State, asked)
		}
	})
}

func TestStopAllCutsADrain(t *testing.T) {
	p := &program{up: true}
	stuck := func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	inTime(t, p, func(c *Config) { c.Drain = stuck }, func(t *testing.T, s *Supervisor) {
		begin(t, s, ported("a-1"))
		state(t, s, "a-1")
		stopped := make(chan error, 1)
		go func() { stopped <- s.Stop(t.Context(), "a-1") }()
		synctest.Wait()
		before := time.Now()
		if err := errors.Join(s.StopAll(t.Context()), <-stopped); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(before); waited != 0 {
			t.Errorf("StopAll waited %s for exchanges to end", waited)
		}
	})
}

func TestReportsAreMergedAndNoneIsLost(t *testing.T) {
	p := &program{up: true}
	slow := func(s fleet.InstanceStatus) { time.Sleep(time.Second); p.report(s) }
	inTime(t, p, func(c *Config) { c.Report = slow }, func(t *testing.T, s *Supervisor) {
		begin(t, s, ported("a-1"))
		state(t, s, "a-1")
		for range 5 {
			p.crash()
			time.Sleep(3500 * time.Millisecond)
			synctest.Wait()
		}
		if err := s.Stop(t.Context(), "a-1"); err != nil {
			t.Fatal(err)
		}
	})
	if last := p.told[len(p.told)-1]; last.State != fleet.Exited {
		t.Errorf("the last report is %+v", last)
	}
}
