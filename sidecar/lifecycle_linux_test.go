package sidecar

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

func TestExitIsTold(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		s := newStand(t)
		for command, want := range map[string]struct {
			code    int
			failure string
		}{
			"true":           {0, ""},
			"exit 7":         {7, ""},
			"kill -SEGV $$":  {128 + 11, "killed by SIGSEGV"},
			"kill -KILL $$":  {128 + 9, "killed by SIGKILL"},
			"/no/such/thing": {127, ""},
		} {
			sc := s.launch(mode, "orders-1", command)
			waitDone(t, sc)
			if code, failure := sc.Exit(); code != want.code || failure != want.failure {
				t.Errorf("%s: %d %q; want %d %q", command, code, failure, want.code, want.failure)
			}
			if err := sc.Stop(context.Background(), time.Minute); err != nil {
				t.Errorf("stopping what has ended: %v", err)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(s.dir, "run", "shim", "*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// The id of an instance may be longer than the path of a socket.
func TestLongID(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		sc := newStand(t).launch(mode, "orders-"+strings.Repeat("x", 90), "exit 6")
		waitDone(t, sc)
		if code, _ := sc.Exit(); code != 6 {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestLaunchErrorsSayWhy(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		s := newStand(t)
		spec := Spec{Assignment: s.assignment(mode, "orders-1", "true")}
		spec.Assignment.Dir = filepath.Join(s.dir, "absent")
		if _, err := s.Launch(context.Background(), spec); err == nil || !strings.Contains(err.Error(), "absent") {
			t.Errorf("in a folder that is not there: %v", err)
		}
		spec.Assignment.Instance = "../orders"
		if _, err := s.Launch(context.Background(), spec); err == nil {
			t.Error("an id that leaves its folder was taken")
		}
		s.launch(mode, "orders-2", "sleep 60")
		if _, err := s.Launch(context.Background(), Spec{Assignment: s.assignment(mode, "orders-2", "true")}); err == nil {
			t.Error("an instance was started twice")
		}
	})
}

// TERM goes to the whole group, so that a child of the shell gets it; the stop ends when the group is empty.
func TestStopReachesTheChildOfTheShell(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		s := newStand(t)
		mark := filepath.Join(s.dir, "ended")
		child := `sh -c 'trap "sleep 0.3; echo done > ` + mark + `; exit 0" TERM; echo up; while :; do sleep 0.05; done'`
		sc := s.launch(mode, "orders-1", child+" & wait")
		eventually(t, "the child is up", func() bool { return strings.Contains(strings.Join(sc.Tail(), ""), "up") })
		if err := sc.Stop(context.Background(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(mark); err != nil {
			t.Errorf("the child was not given the time to end: %v", err)
		}
		if _, failure := sc.Exit(); failure != "killed by SIGTERM" {
			t.Errorf("failure %q", failure)
		}
	})
}

func TestKillAfterTheGracePeriod(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		s := newStand(t)
		sc := s.launch(mode, "orders-1", `trap "" TERM; echo up; while :; do sleep 0.05; done`)
		eventually(t, "it is up", func() bool { return strings.Contains(strings.Join(sc.Tail(), ""), "up") })
		pid := sc.PID()
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		if err := sc.Stop(ctx, time.Hour); err == nil {
			t.Error("it ended by TERM")
		}
		if err := sc.Stop(context.Background(), 100*time.Millisecond); err != nil { // shortens the first
			t.Fatal(err)
		}
		if alive(pid) {
			t.Error("it lives on")
		}
	})
}

func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, _ := os.ReadFile("/proc/" + itoa(pid) + "/stat")
	return !strings.Contains(string(b), ") Z ")
}

// What leaves the process group, and orphans, end with the application; zombies are reaped meanwhile.
func TestNothingOutlivesTheApplication(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		s := newStand(t)
		long := longTime()
		sc := s.launch(mode, "orders-1", `for i in 1 2 3; do (setsid sh -c 'sleep `+long+`' & ) ; done
			for i in $(seq 50); do (true &) ; done; setsid sleep `+long+` & sleep `+long+` & wait`)
		eventually(t, "it is up", func() bool { return len(sleepers(long)) == 5 })
		eventually(t, "zombies are reaped", func() bool {
			return quiet(sc, "sh", "-c", `cat /proc/[0-9]*/stat 2>/dev/null | grep ' Z ' | grep -c '(true)'`) == "0"
		})
		before := sleepers(long)
		if err := sc.Stop(context.Background(), 5*time.Second); err != nil {
			t.Fatal(err)
		}
		for _, pid := range before {
			eventually(t, "an orphan is gone", func() bool { return !alive(pid) })
		}
	})
}

var times atomic.Int64

// longTime is a time to sleep that no other test uses, nor another run of this one.
func longTime() string { return fmt.Sprintf("1000.%d%03d", os.Getpid(), times.Add(1)) }

// sleepers returns the processes that sleep that long.
func sleepers(long string) []int {
	var found []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		b, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if string(b) == "sleep\x00"+long+"\x00" {
			found = append(found, atoi(e.Name()))
		}
	}
	return found
}

// A shim is PID 1 of its namespace: with it, everything inside ends. Outside a namespace this process
// finds what is left.
func TestDeathOfTheShimIsDeathOfTheInstance(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		s := newStand(t)
		long := longTime()
		sc := s.launch(mode, "orders-1", fmt.Sprintf("sleep %s & setsid sleep %[1]s & sleep %[1]s", long))
		eventually(t, "it is up", func() bool { return len(sleepers(long)) == 3 })
		all := sleepers(long)
		_ = syscall.Kill(sc.shimPID, syscall.SIGKILL)
		waitDone(t, sc)
		if _, failure := sc.Exit(); !strings.Contains(failure, "shim") {
			t.Errorf("failure %q", failure)
		}
		for _, pid := range all {
			eventually(t, "what it ran is gone", func() bool { return !alive(pid) })
		}
	})
}

func TestLogIsBoundedAndRedacted(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		s := newStand(t, func(c *Config) { c.LogLimit = 1 << 20 })
		secret := "-----BEGIN KEY-----\nMIIE\n-----END KEY-----"
		sc := s.launch(mode, "orders-1", `printf 'key is %s.\n' "$KEY" >&2; printf 'hal'; sleep 0.6; echo f; echo "$PASSWORD"; `+app(t, "flood"), func(sp *Spec) {
			sp.Env = []string{"KEY=" + secret, "PASSWORD=hunter22", "URL=postgres://u:hunter22@db/x"}
			sp.Redact = []string{secret, "hunter22"}
		})
		eventually(t, "the flood is over", func() bool { return strings.HasSuffix(strings.Join(sc.Tail(), "\n"), "the last line") })
		path := filepath.Join(s.dir, "data", "logs", "orders", "orders-1.log")
		total := int64(0)
		for _, name := range []string{path, path + ".1"} {
			fi, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			total += fi.Size()
		}
		if total > 1<<20 || total < 1<<19 {
			t.Errorf("the log has %d bytes; the limit is %d", total, 1<<20)
		}
		if n := len(sc.Tail()); n == 0 || n > 50 {
			t.Errorf("the tail has %d lines", n)
		}
		env := strings.Join(sc.Environment(), "\n")
		if strings.Contains(env, "hunter22") || strings.Contains(env, "MIIE") || !strings.Contains(env, "URL=postgres://u:•••@db/x") {
			t.Errorf("the environment is shown as %s", env)
		}
	})
}

func TestLogRedacts(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		s := newStand(t)
		secret := "-----BEGIN KEY-----\nMIIE\n-----END KEY-----"
		sc := s.launch(mode, "orders-1", `printf 'key is %s.\n' "$KEY" >&2; printf hunt; sleep 0.6; echo er22; printf start; sleep 0.6; echo ing`, func(sp *Spec) {
			sp.Env, sp.Redact = []string{"KEY=" + secret}, []string{secret, "hunter22", "st"}
		})
		waitDone(t, sc)
		if got, want := strings.Join(sc.Tail(), "\n"), "key is •••.\n•••\nstarting"; got != want {
			t.Errorf("got %q; want %q", got, want)
		}
		b, _ := os.ReadFile(filepath.Join(s.dir, "data", "logs", "orders", "orders-1.log"))
		if string(b) != "key is •••.\n•••\nstarting\n" {
			t.Errorf("the log has %q", b)
		}
	})
}

// nonBlocking finds O_NONBLOCK, octal 4000, in the flags of a file.
var nonBlocking = regexp.MustCompile(`(?m)[4-7]...$`)

// Standard output blocks, as programs expect, also while nobody could take it in time.
func TestStandardFilesBlock(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		const flags = "for fd in 0 1 2; do grep flags /proc/$$/fdinfo/$fd; done"
		s := newStand(t)
		if got := s.output(mode, "orders-1", flags); nonBlocking.MatchString(got) {
			t.Errorf("non-blocking: %q", got)
		}
		sc := s.launch(mode, "orders-2", "sleep 60")
		if got := run(t, sc, "sh", "-c", flags); nonBlocking.MatchString(got) {
			t.Errorf("non-blocking: %q", got)
		}
	})
}

// An application inherits a few variables, and gets what it is given.
func TestEnvironment(t *testing.T) {
	t.Setenv("SHOAL_TEST_SECRET", "of the node")
	t.Setenv("TZ", "Europe/Berlin")
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		s := newStand(t)
		sc := s.launch(mode, "orders-1", "env; echo $0; pwd", func(sp *Spec) { sp.Env = []string{"A=1", "A=2", "HOME=/h"} })
		waitDone(t, sc)
		got := "\n" + strings.Join(sc.Tail(), "\n") + "\n"
		for _, want := range []string{"\nA=2\n", "\nHOME=/h\n", "\nTZ=Europe/Berlin\n", "\nPATH=", "\nSHOAL_STATE=" + s.dir + "/data/state/orders\n", "\n" + s.dir + "\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in %s", want, got)
			}
		}
		if strings.Contains(got, "SHOAL_TEST_SECRET") || mode == fleet.Netns && strings.Contains(got, "\nPORT=") {
			t.Errorf("too much: %s", got)
		}
	})
}
