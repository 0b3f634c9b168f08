package sidecar

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

func TestProbe(t *testing.T) {
	needNetns(t)
	c := Probe(context.Background())
	if len(c.Checks) != 7 || c.Reason != "" {
		t.Errorf("got %+v", c)
	}
	for _, check := range c.Checks {
		if !check.OK {
			t.Errorf("%+v", check)
		}
	}
}

// A machine that allows no user namespaces has explicit mode, and doctor can say what mends it.
func TestProbeSaysWhatIsMissing(t *testing.T) {
	needNetns(t)
	cmd := exec.Command(self(t), "app", "probe")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := string(out); !strings.HasPrefix(got, "explicit\nnamespaces: ") || !strings.Contains(got, "\nsudo sysctl -w user.max_user_namespaces=15000\n") {
		t.Errorf("got %s", got)
	}
}

// probeApp probes where user namespaces are switched off, which its own user namespace can.
func probeApp() int {
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		return fail(err)
	}
	c := Probe(context.Background())
	fmt.Printf("%s\n%s\n%s\n", c.Mode, c.Reason, c.Remedy)
	if c.Mode != fleet.Explicit {
		return 1
	}
	return 0
}

// Start to sockets, printed, never asserted: `go test -bench Launch ./sidecar`.
func BenchmarkLaunch(b *testing.B) {
	for _, mode := range []fleet.Mode{fleet.Netns, fleet.Explicit} {
		b.Run(string(mode), func(b *testing.B) {
			if mode == fleet.Netns {
				needNetns(b)
			}
			s := newStand(b)
			for b.Loop() {
				sc, err := s.Launch(context.Background(), Spec{Assignment: s.assignment(mode, "orders-1", "exec sleep 60")})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				_ = sc.Stop(context.Background(), 0)
				b.StartTimer()
			}
		})
	}
}

func BenchmarkDial(b *testing.B) {
	needNetns(b)
	s := newStand(b)
	sc := s.launch(fleet.Netns, "orders-1", app(b, "serve", ":8080"))
	eventually(b, "it answers", func() bool { return dials(sc, 8080) })
	for b.Loop() {
		if !dials(sc, 8080) {
			b.Fatal("it does not answer")
		}
	}
}
