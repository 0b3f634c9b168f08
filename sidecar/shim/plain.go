package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

const plainGrace = 5 * time.Second

// Command is a shell command that must not outlive its owner.
type Command struct {
	Executable string // run as `Executable shim plain`; empty: this binary
	Dir        string
	Shell      string   // run as `/bin/sh -c`
	Env        []string // NAME=value; the whole environment
	// Output is called with each line of standard output and error, from one goroutine. nil: discarded.
	Output func(line string)
}

// Run runs a command under a shim of its own and returns its exit code. The command and everything
// it started end with it, with ctx (TERM, and KILL after 5 s), and with this process.
func Run(ctx context.Context, c Command) (code int, err error) {
	if c.Executable == "" {
		if c.Executable, err = os.Executable(); err != nil {
			return 0, err
		}
	}
	spec, err := json.Marshal(Start{Argv: shell(c.Shell), Dir: c.Dir, Env: c.Env, Grace: plainGrace})
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(c.Executable, "shim", argPlain)
	cmd.Env, cmd.SysProcAttr = bareEnv(), sessionAttr()
	owner, err := cmd.StdinPipe() // the command is written to it, and it stays open
	if err != nil {
		return 0, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer read.Close()
	cmd.Stdout, cmd.Stderr = write, write
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		return 0, fmt.Errorf("a shim for %q: %w", c.Shell, err)
	}
	defer context.AfterFunc(ctx, func() { _ = owner.Close() })()
	_, err = owner.Write(append(spec, '\n'))
	copied := make(chan struct{})
	go func() { eachLine(read, c.Output); close(copied) }()
	code, waitErr := waitPlain(cmd)
	_ = owner.Close()
	select {
	case <-copied:
	case <-time.After(time.Second): // something that left the group and the session holds the pipe
		_ = read.Close()
		<-copied
	}
	return code, errors.Join(context.Cause(ctx), err, waitErr)
}

// waitPlain returns the exit code, which the shim passes on. What a killed shim leaves is killed.
func waitPlain(cmd *exec.Cmd) (int, error) {
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		KillSession(cmd.Process.Pid)
		return 0, fmt.Errorf("the command's shim was killed, and so the command with it: %w", err)
	}
	return 0, nil
}

func eachLine(r io.Reader, output func(string)) {
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, _, err := lines.ReadLine()
		if err != nil {
			return
		}
		if output != nil {
			output(string(line))
		}
	}
}

// bareEnv is the environment of a shim itself, which needs none: what its application gets is sent.
func bareEnv() []string {
	env := []string{"GOMAXPROCS=2"}
	for _, name := range []string{"GOCOVERDIR", "GORACE", "GOTRACEBACK", "SYSTEMROOT"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// plainMain is the shim's side of Run: standard input is the command, and then the owner.
func plainMain() int {
	procs := newProcesses()
	adoptOrphans()
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	var spec Start
	if err == nil {
		err = json.Unmarshal(line, &spec)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shoal shim: no command was given:", err)
		return 1
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		fmt.Fprintln(os.Stderr, "shoal shim:", err)
		return 1
	}
	p, err := procs.start(spec, false, null, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "shoal:", err)
		return 127 // as a shell answers for a command that it cannot find
	}
	end := endWithOwner(in, p, spec.Grace)
	<-p.exited
	end()
	p.killGroup()
	killChildren()
	return p.exit.Code
}

// endWithOwner stops p when in ends. The function that it returns waits for a stop that has begun.
func endWithOwner(in io.Reader, p *process, grace time.Duration) (wait func()) {
	var mu sync.Mutex // held while the group is being stopped
	go func() {
		_, _ = io.Copy(io.Discard, in)
		mu.Lock()
		defer mu.Unlock()
		_ = p.signalGroup(signalTerm)
		for until := time.Now().Add(grace); p.groupExists() && time.Now().Before(until); {
			time.Sleep(pollGroup)
		}
		p.killGroup()
	}()
	return mu.Lock
}
