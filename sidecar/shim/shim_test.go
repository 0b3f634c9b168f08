//go:build linux

package shim

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the shim, and an owner that is killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(Main())
	}
	if len(os.Args) > 2 && os.Args[1] == "owner" {
		code, err := Run(context.Background(), Command{Dir: "/", Shell: os.Args[2]})
		fmt.Println(code, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	var lines []string
	code, err := Run(context.Background(), Command{
		Dir: dir, Shell: "pwd; echo $A >&2; printf unfinished; exit 9", Env: []string{"A=1", "PATH=" + os.Getenv("PATH")},
		Output: func(line string) { lines = append(lines, line) },
	})
	if err != nil || code != 9 || !slices.Equal(lines, []string{dir, "1", "unfinished"}) {
		t.Errorf("exit code %d, %v, lines %q", code, err, lines)
	}
	if code, err := Run(context.Background(), Command{Dir: dir, Shell: "kill -TERM $$"}); err != nil || code != 128+15 {
		t.Errorf("of a command that a signal ended: %d, %v", code, err)
	}
	if code, err := Run(context.Background(), Command{Dir: filepath.Join(dir, "absent"), Shell: "true"}); err != nil || code != 127 {
		t.Errorf("in a folder that is not there: %d, %v", code, err)
	}
}

// sleeping returns the processes that sleep that long.
func sleeping(long string) []int {
	return slices.DeleteFunc(processesWith(func(st procStat) bool { return st.state != "Z" }), func(pid int) bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return string(b) != "sleep\x00"+long+"\x00"
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
	}
}

func TestRunLeavesNothing(t *testing.T) {
	long := fmt.Sprintf("1000.%d", os.Getpid())
	command := fmt.Sprintf("setsid sleep %s & (sleep %[1]s &) ; sleep %[1]s", long)
	up := func() bool { return len(sleeping(long)) == 3 }
	gone := func() bool { return len(sleeping(long)) == 0 }

	t.Run("at its end", func(t *testing.T) {
		if _, err := Run(context.Background(), Command{Dir: "/", Shell: strings.ReplaceAll(command, "; sleep", "; true")}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "nothing is left", gone)
	})
	t.Run("with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			_, err := Run(ctx, Command{Dir: "/", Shell: command})
			ended <- err
		}()
		eventually(t, "it is up", up)
		cancel()
		if err := <-ended; err == nil {
			t.Error("no error says that it was ended")
		}
		eventually(t, "nothing is left", gone)
	})
	t.Run("with its owner", func(t *testing.T) {
		owner := exec.Command(os.Args[0], "owner", command)
		if err := owner.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is up", up)
		_ = owner.Process.Kill()
		_ = owner.Wait()
		eventually(t, "nothing is left", gone)
	})
	t.Run("with its shim", func(t *testing.T) {
		ended := make(chan error, 1)
		go func() {
			_, err := Run(context.Background(), Command{Dir: "/", Shell: fmt.Sprintf("sleep %s & sleep %[1]s", long)})
			ended <- err
		}()
		eventually(t, "it is up", func() bool { return len(sleeping(long)) == 2 })
		shims := processesWith(func(st procStat) bool { return st.parent == os.Getpid() && st.state != "Z" })
		for _, pid := range shims {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "shim") {
			t.Errorf("got %v", err)
		}
		eventually(t, "nothing is left", gone)
	})
}

func TestRedactionAcrossReads(t *testing.T) {
	const secret = "s3cret-value\nof two lines"
	text := "before " + secret + " between s3cret-val and " + secret + "\nlast s3cr"
	for _, size := range []int{1, 2, 3, 7, 1000} {
		dir := t.TempDir()
		l, err := OpenLog(dir, "log", 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer w.Close()
			for chunk := range slices.Chunk([]byte(text), size) {
				_, _ = w.Write(chunk)
			}
		}()
		newOutput(l, []string{secret, "", "x"}).copy(r)
		b, _ := os.ReadFile(filepath.Join(dir, "log"))
		if want := strings.ReplaceAll(text, secret, redacted); string(b) != want {
			t.Errorf("in parts of %d: %q; want %q", size, b, want)
		}
	}
}

// An endless line is bounded, too, in memory and on disk; and a log that cannot be written stops nobody.
func TestLogOfAnEndlessLine(t *testing.T) {
	dir := t.TempDir()
	l, err := OpenLog(dir, "log", 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o := newOutput(l, []string{"xxxxxy"})
	go func() {
		defer w.Close()
		_, _ = io.CopyN(w, endless{}, 4<<20)
	}()
	o.copy(r)
	for _, name := range []string{"log", "log.1"} {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil || fi.Size() > 1<<15 {
			t.Errorf("%s has %v bytes, %v", name, fi, err)
		}
	}
	if len(o.tail) > maxTail {
		t.Errorf("%d bytes are in memory", len(o.tail))
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func TestConnCarriesMessagesAndFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	u, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	b := NewConn(u)
	r, w, _ := os.Pipe()
	go func() {
		for i := range uint64(100) {
			_ = a.Send(Message{ID: i, Verb: VerbTail, Lines: []string{strings.Repeat("x", int(i)*1000)}}, w, w)
		}
		_ = a.Close()
	}()
	for i := range uint64(100) {
		m, files, err := b.Receive()
		if err != nil || m.ID != i || len(files) != 2 || len(m.Lines[0]) != int(i)*1000 {
			t.Fatalf("message %d: %v with %d files, %v", i, m.ID, len(files), err)
		}
		_, _ = files[1].WriteString("y")
		_, _ = r.Read(make([]byte, 1))
		closeAll(files)
	}
	if _, _, err := b.Receive(); err == nil {
		t.Error("a message came over a closed connection")
	}
}

// Messages that are too large, or none at all, end the connection, not the process.
func TestConnRefusesWhatIsTooLarge(t *testing.T) {
	for _, bytes := range []string{"\xff\xff\xff\xff", "\x00\x00\x00\x03{x}", "\x00\x00"} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		u, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, bytes)
		_ = c.Close()
		if _, _, err := NewConn(u).Receive(); err == nil {
			t.Errorf("%q was taken", bytes)
		}
	}
}
