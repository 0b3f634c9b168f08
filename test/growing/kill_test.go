//go:build unix

package growing

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// victim is what a process is told that runs a broker, publishes, moves it, and kills itself when the move says something.
type victim struct {
	Dir  string       `json:"dir"`
	At   fleet.Engine `json:"at"`
	To   fleet.Engine `json:"to"`
	When string       `json:"when"` // what the move says begins with this; empty: what follows its last word
}

const victimVariable = "GROWING_VICTIM"

// beVictim is the process. It prints what was acknowledged, line by line.
func beVictim(told string) error {
	var v victim
	if err := json.Unmarshal([]byte(told), &v); err != nil {
		return err
	}
	b, err := broker.New(broker.Config{Dir: v.Dir, External: v.At, Fleet: "shop", Reserve: -1})
	if err != nil {
		return err
	}
	ctx := context.Background()
	go func() { _ = b.Run(ctx) }()
	if _, err = b.CreateTopic(ctx, op, broker.TopicConfig{Name: "orders"}); err != nil {
		return err
	}
	if _, err = b.CreateSubscription(ctx, op, broker.SubscriptionConfig{Name: "orders-sub", Topic: "orders"}); err != nil {
		return err
	}
	ready := make(chan struct{})
	for i := range 4 {
		go func() {
			for n := 0; ; n++ {
				data := fmt.Sprintf("%d-%d", i, n)
				if _, err := b.PublishMessages(ctx, op, "orders", []broker.Message{{Data: []byte(data)}}); err == nil {
					fmt.Println(data) // one write: it is out, whatever becomes of the process
				}
				if i == 0 && n == 100 {
					close(ready)
				}
			}
		}()
	}
	<-ready
	_, err = b.Move(ctx, v.To, false, func(said string) {
		if v.When != "" && strings.HasPrefix(said, v.When) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	if err == nil && v.When == "" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return fmt.Errorf("still alive: %w", err)
}

// runVictim returns what was acknowledged before the process was killed.
func runVictim(t *testing.T, v victim) (acked []string) {
	t.Helper()
	told, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimVariable+"="+string(told))
	var wrong strings.Builder
	cmd.Stderr = &wrong
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		acked = append(acked, lines.Text())
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("it was not killed: %v\n%s", err, wrong.String())
	}
	return acked
}

// TestMoveIsKilled kills the process at every step of a move, to a server and back home: afterwards exactly one side is in force, which has all that was
// acknowledged; the status says what to do where the move is not done; and another attempt succeeds. Before the switch it stays where it was, even where the
// hub is told of the other side as of its own.
func TestMoveIsKilled(t *testing.T) {
	for _, c := range []struct {
		when  string
		moved bool
	}{
		{"pass 1", false}, {"publishes are held", false}, {"everything is there", false}, {"publishes were held", true}, {"", true},
	} {
		ways := []string{"out"}
		if c.when == "everything is there" || c.when == "publishes were held" { // on both sides of the switch
			ways = []string{"out", "home", "on"}
		}
		for _, way := range ways {
			t.Run(or(c.when, "done")+"/"+way, func(t *testing.T) {
				v := victim{Dir: t.TempDir(), When: c.when, To: engine(servers(t, 1, settings{}), "shop")}
				if way != "out" {
					v.At = v.To
					v.To = fleet.Engine{}
				}
				if way == "on" {
					v.To = engine(servers(t, 1, settings{}), "shop")
				}
				acked := runVictim(t, v)
				k := newBench(t, v.Dir, v.To)
				in, other := v.At, v.To
				if c.moved {
					in, other = v.To, v.At
				}
				at := k.Engine()
				if at.Engine != in.String() || at.Away != "" {
					t.Fatalf("it is %+v, of %s and %s", at, v.At, v.To)
				}
				if !c.moved && !strings.Contains(at.Notice, "shoal broker move --to "+v.To.String()) {
					t.Errorf("the status says %q", at.Notice)
				}
				if c.moved && strings.Contains(at.Notice, "cut off") {
					t.Errorf("the status says %q", at.Notice)
				}
				if _, err := k.Move(t.Context(), other, false, func(string) {}); err != nil {
					t.Fatal(err)
				}
				if now := k.Engine(); now.Engine != other.String() || now.Notice != "" {
					t.Errorf("after another move it is %+v", now)
				}
				if lost := k.lost(acked); len(lost) > 0 || len(acked) < 100 {
					t.Errorf("of %d acknowledged these are lost: %v", len(acked), lost)
				}
			})
		}
	}
}

// lost are those of what was acknowledged that do not come.
func (k *bench) lost(acked []string) (out []string) {
	k.t.Helper()
	came := make(map[string]int)
	for _, data := range k.all("orders", "orders-sub") {
		came[data]++
	}
	for _, data := range acked {
		if came[data] != 1 {
			out = append(out, fmt.Sprintf("%s (%d times)", data, came[data]))
		}
	}
	return out
}
