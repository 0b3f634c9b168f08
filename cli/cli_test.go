package cli_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what the scripts print into them")

// quickExit spares every process the second for which the race detector waits at its end.
const quickExit = "GORACE=atexit_sleep_ms=0"

// Every script runs `shoal` as a user does: a process, its streams, its exit code.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata", UpdateScripts: *update, RequireExplicitExec: false,
		Setup: func(e *testscript.Env) error {
			run, err := os.MkdirTemp("", "run") // a socket's path is short
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(run) })
			e.Setenv("XDG_RUNTIME_DIR", run)
			e.Setenv("XDG_CACHE_HOME", e.WorkDir+"/.cache")
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("TZ", "UTC")
			e.Vars = append(e.Vars, quickExit)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": exitCode},
	})
}

// exitCode is `status N VERB...`: runs shoal and wants exit code N.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE ARGUMENT...")
	}
	err := ts.Exec("shoal", args[1:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("shoal %s: exit code %s, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}
