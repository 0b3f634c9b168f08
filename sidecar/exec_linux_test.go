package sidecar

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

func TestExec(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		s := newStand(t)
		sc := s.launch(mode, "orders-1", "sleep 60", func(sp *Spec) { sp.Env = []string{"A=app", "B=app"} })
		var out, errs bytes.Buffer
		code, err := sc.Exec(context.Background(), ExecSpec{
			Command: []string{"sh", "-c", `cat; echo "$A $B $SHOAL_INSTANCE" >&2; pwd; grep Cap /proc/self/status; exit 3`},
			Env:     []string{"B=exec"},
			Stdin:   strings.NewReader("from outside\n"), Stdout: &out, Stderr: &errs,
		})
		if err != nil || code != 3 {
			t.Errorf("exit code %d, %v", code, err)
		}
		if !strings.HasPrefix(out.String(), "from outside\n"+s.dir+"\n") || errs.String() != "app exec orders-1\n" {
			t.Errorf("got %q and %q", out.String(), errs.String())
		}
		if mode == fleet.Netns && strings.Count(out.String(), "0000000000000000") != 5 {
			t.Errorf("it has capabilities: %s", out.String())
		}
		if _, err := sc.Exec(context.Background(), ExecSpec{Command: []string{"no-such-program"}}); err == nil || !strings.Contains(err.Error(), "no-such-program") {
			t.Errorf("of a program that is not there: %v", err)
		}
		if _, err := sc.Exec(context.Background(), ExecSpec{}); err == nil {
			t.Error("nothing was executed")
		}
	})
}

// safeBuffer is a buffer for a reader and a writer.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestExecOnATerminal(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		sc := newStand(t).launch(mode, "orders-1", "sleep 60")
		in, typed := io.Pipe()
		out := &safeBuffer{}
		resize := make(chan Size)
		done := make(chan int, 1)
		go func() {
			code, _ := sc.Exec(context.Background(), ExecSpec{
				Command: []string{"sh"}, TTY: true, Rows: 30, Columns: 90,
				Stdin: in, Stdout: out, Resize: resize,
			})
			done <- code
		}()
		typeLine := func(line, want string) {
			t.Helper()
			_, _ = typed.Write([]byte(line + "\n"))
			eventually(t, "the terminal shows "+want, func() bool { return strings.Contains(out.String(), want) })
		}
		typeLine("tty > /dev/null && echo ter\"\"minal; stty size", "30 90")
		typeLine("", "terminal")
		resize <- Size{40, 100}
		resize <- Size{40, 100} // which is taken once the first is in force
		typeLine("stty size", "40 100")
		typeLine(`echo j""ob; sleep 1000`, "job")
		eventually(t, "Ctrl-C ends the sleep", func() bool { // again, should it come before the sleep does
			_, _ = typed.Write([]byte("\x03\necho st$((1))ll\n"))
			time.Sleep(100 * time.Millisecond)
			return strings.Contains(out.String(), "st1ll")
		})
		_, _ = typed.Write([]byte("exit 4\n"))
		if code := <-done; code != 4 {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestExecEndsWithContextSignalAndApplication(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		sc := newStand(t).launch(mode, "orders-1", "sleep 60")
		ctx, cancel := context.WithCancel(context.Background())
		out := &safeBuffer{}
		ended := make(chan error, 1)
		go func() {
			_, err := sc.Exec(ctx, ExecSpec{Command: []string{"sh", "-c", "echo up; sleep 1000"}, Stdout: out})
			ended <- err
		}()
		eventually(t, "it is up", func() bool { return out.String() != "" })
		cancel()
		if err := <-ended; err == nil {
			t.Error("it went on after its context")
		}
		signals := make(chan os.Signal, 1)
		signals <- syscall.SIGTERM
		code, err := sc.Exec(context.Background(), ExecSpec{Command: []string{"sleep", "1000"}, Signals: signals})
		if err != nil || code != 128+15 {
			t.Errorf("after TERM: %d, %v", code, err)
		}
		go func() {
			_, err := sc.Exec(context.Background(), ExecSpec{Command: []string{"sh", "-c", "echo again; sleep 1000"}, Stdout: out})
			ended <- err
		}()
		eventually(t, "it is up again", func() bool { return strings.Contains(out.String(), "again") })
		if err := sc.Stop(context.Background(), 0); err != nil {
			t.Fatal(err)
		}
		<-ended
		if _, err := sc.Exec(context.Background(), ExecSpec{Command: []string{"true"}}); err == nil {
			t.Error("a command ran in an application that had ended")
		}
	})
}
