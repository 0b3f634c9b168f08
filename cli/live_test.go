//go:build unix

package cli_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// terminal runs `shoal` in a terminal of its own.
func terminal(t *testing.T, cmd *exec.Cmd, columns, rows int) (*os.File, *screen, <-chan struct{}) {
	t.Helper()
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: uint16(rows), Cols: uint16(columns)})
	if err != nil {
		t.Skip("no pseudo terminals here:", err)
	}
	s, done := newScreen(columns, rows), make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(s, tty) // ends with an error once the last process has closed it
	}()
	t.Cleanup(func() { cmd.Process.Kill(); tty.Close(); <-done })
	return tty, s, done
}

// shows waits until the screen has the text.
func shows(t *testing.T, s *screen, text string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(s.text(), text) {
		if time.Now().After(deadline) {
			t.Fatalf("the screen never showed %q:\n%s", text, s.text())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestLiveTableSurvivesResizesAndEndsWithCtrlC(t *testing.T) {
	dir, _ := folder(t)
	cmd := shoal(dir, "up")
	cmd.Env = append(cmd.Env, "TERM=xterm", "NO_COLOR=1")
	tty, s, done := terminal(t, cmd, 80, 24)
	shows(t, s, "shop  1 of 1 service ready  gateway http://127.0.0.1:8000\n\nSERVICE  STATE  ORIGIN  RELEASE\nweb      ready  edit    1f3c9a000000  http://web.localhost:8000\n\nCtrl-C stops everything")
	for _, size := range [][2]int{{30, 10}, {100, 40}, {20, 5}, {60, 12}} {
		s.resize(size[0], size[1])
		if err := pty.Setsize(tty, &pty.Winsize{Cols: uint16(size[0]), Rows: uint16(size[1])}); err != nil {
			t.Fatal(err)
		}
		shows(t, s, cut("shop  1 of 1 service ready  gateway http://127.0.0.1:8000", size[0])+"\n\nSERVICE")
		if n := strings.Count(s.text(), "SERVICE"); n != 1 {
			t.Errorf("at %v the table is there %d times:\n%s", size, n, s.text())
		}
	}
	tty.Write([]byte{3})
	<-done
	cmd.Wait()
	if !strings.Contains(s.text(), "stopped") || s.colours > 0 {
		t.Errorf("%d colours; at the end:\n%s", s.colours, s.text())
	}
}

func cut(text string, columns int) string {
	if len(text) <= columns {
		return text
	}
	return text[:columns-1] + "…"
}

func TestTerminalsHaveColoursAndPipesHaveNone(t *testing.T) {
	for _, tt := range []struct {
		env  string
		want bool
	}{{"TERM=xterm", true}, {"NO_COLOR=1", false}, {"TERM=dumb", false}} {
		dir, _ := folder(t)
		cmd := shoal(dir, "doctor")
		cmd.Env = append(cmd.Env, "TERM=xterm", "NO_COLOR=", tt.env)
		_, s, done := terminal(t, cmd, 100, 40)
		<-done
		cmd.Wait()
		if got := s.colours > 0; got != tt.want || !strings.Contains(s.text(), "sudo modprobe nf_tables") {
			t.Errorf("%s: colours %v, want %v\n%s", tt.env, got, tt.want, s.text())
		}
	}
	dir, _ := folder(t)
	if out, _ := shoal(dir, "doctor").Output(); strings.Contains(string(out), "\x1b") {
		t.Errorf("a pipe got %q", out)
	}
}

func TestFailuresStayAboveTheLiveTable(t *testing.T) {
	dir, _ := folder(t, "fail")
	cmd := shoal(dir, "up")
	cmd.Env = append(cmd.Env, "TERM=xterm", "NO_COLOR=1")
	tty, s, done := terminal(t, cmd, 70, 24)
	shows(t, s, fmt.Sprintf("%-12s %-8s %s", "web", "failed", "exited with code 3"))
	shows(t, s, "web      failed  edit    1f3c9a000000  exited with code 3\n\nCtrl-C")
	shows(t, s, "waiting for a change that mends it")
	tty.Write([]byte{3})
	<-done
	cmd.Wait()
}
