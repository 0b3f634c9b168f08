package sidecar

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

func itoa(n int) string { return strconv.Itoa(n) }

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// node is a process with a manager of its own.
type node struct {
	cmd *exec.Cmd
	pid int // of its application
}

func startNode(t *testing.T, dir string, mode fleet.Mode, owned, command string) node {
	t.Helper()
	cmd := exec.Command(self(t), "app", "node", dir, string(mode), owned, command)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid := atoi(strings.TrimSpace(line))
	if err != nil || pid == 0 {
		t.Fatalf("the node said %q, %v", line, err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return node{cmd, pid}
}

func (n node) kill() {
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
}

// kill -9 of a node leaves its applications running, serving, and even writing; the next one adopts them.
func TestApplicationSurvivesItsNode(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		dir := shortDir(t)
		listen := ":8080"
		if mode == fleet.Explicit {
			listen = ":$PORT"
		}
		url := "http://inventory/"
		if mode == fleet.Explicit {
			url = "$INVENTORY_URL"
		}
		n := startNode(t, dir, mode, "adoptable", `(while :; do echo tick; sleep 0.01; done) &
			(while [ ! -e gone ]; do sleep 0.01; done; : > asked; curl -sS --max-time 50 `+url+` > answer) &
			exec `+app(t, "serve", listen))
		n.kill()
		write(t, dir+"/gone", "")
		eventually(t, "it calls while no node is there", func() bool { return exists(dir + "/asked") })
		if !alive(n.pid) {
			t.Fatal("the application died with its node")
		}
		s := standIn(t, dir)
		all, err := s.Adopt(context.Background())
		if err != nil || len(all) != 1 {
			t.Fatalf("adopted %v, %v", all, err)
		}
		sc := all[0]
		t.Cleanup(func() { _ = sc.Stop(context.Background(), 0) })
		if sc.PID() != n.pid || sc.Assignment().Service != "orders" || !s.proxy.isAttached("orders-1") {
			t.Errorf("adopted pid %d, want %d; %+v", sc.PID(), n.pid, sc.Assignment())
		}
		eventually(t, "it answers", func() bool { return strings.HasPrefix(ask(sc, 8080), "orders-1 at ") })
		eventually(t, "the call of the meantime is answered", func() bool {
			b, _ := os.ReadFile(dir + "/answer")
			return strings.HasPrefix(string(b), "orders-1 calls ")
		})
		if got := run(t, sc, "sh", "-c", "curl -sS --max-time 20 "+url); !strings.HasPrefix(got, "orders-1 calls ") {
			t.Errorf("its calls: %q", got)
		}
		if strings.Join(sc.Environment(), "\n") == "" || !strings.Contains(strings.Join(sc.Tail(), ""), "tick") {
			t.Error("its environment or its output is lost")
		}
		if again, err := s.Adopt(context.Background()); err != nil || len(again) != 0 {
			t.Errorf("adopted again: %v, %v", again, err)
		}
		if err := sc.Stop(context.Background(), 5*time.Second); err != nil || alive(n.pid) {
			t.Errorf("after Stop (%v) it lives: %v", err, alive(n.pid))
		}
	})
}

// An exit that nobody saw is told to the node that adopts.
func TestExitWaitsForTheNextNode(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		dir := shortDir(t)
		n := startNode(t, dir, mode, "adoptable", `while [ ! -e end ]; do sleep 0.01; done; echo bye; exit 5`)
		n.kill()
		write(t, dir+"/end", "")
		eventually(t, "it ended", func() bool { return !alive(n.pid) })
		s := standIn(t, dir)
		all, err := s.Adopt(context.Background())
		if err != nil || len(all) != 1 {
			t.Fatalf("adopted %v, %v", all, err)
		}
		waitDone(t, all[0])
		if code, failure := all[0].Exit(); code != 5 || failure != "" || strings.Join(all[0].Tail(), "") != "bye" {
			t.Errorf("exit %d %q, tail %q", code, failure, all[0].Tail())
		}
	})
}

// Where node and shim are killed, the next node finds nothing to adopt, and ends what is left.
func TestNodeAndShimKilled(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		dir := shortDir(t)
		long := longTime()
		n := startNode(t, dir, mode, "adoptable", fmt.Sprintf("setsid sleep %s & exec sleep %[1]s", long))
		eventually(t, "it is up", func() bool { return len(sleepers(long)) == 2 })
		all := sleepers(long)
		parent := parentOf(n.pid)
		n.kill()
		_ = syscall.Kill(parent, syscall.SIGKILL)
		s := standIn(t, dir)
		if adopted, err := s.Adopt(context.Background()); err != nil || len(adopted) != 0 {
			t.Errorf("adopted %v, %v", adopted, err)
		}
		for _, pid := range all {
			eventually(t, "what it ran is gone", func() bool { return !alive(pid) })
		}
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// parentOf returns the shim of an application.
func parentOf(pid int) int {
	b, _ := os.ReadFile("/proc/" + itoa(pid) + "/stat")
	_, rest, _ := strings.Cut(string(b), ") ")
	return atoi(strings.Fields(rest)[1])
}

// Foreground: the shims hold a pipe whose other end only the node has.
func TestOwnedLeavesNothing(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		dir := shortDir(t)
		long := longTime()
		n := startNode(t, dir, mode, "owned", fmt.Sprintf("setsid sleep %s & sleep %[1]s & wait", long))
		eventually(t, "it is up", func() bool { return len(sleepers(long)) == 2 })
		all := append(sleepers(long), n.pid)
		n.kill()
		for _, pid := range all {
			eventually(t, "what the node started is gone", func() bool { return !alive(pid) })
		}
	})
}
