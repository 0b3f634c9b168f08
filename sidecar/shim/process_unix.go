//go:build unix

package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const signalTerm = syscall.SIGTERM

func signalOf(number int) syscall.Signal { return syscall.Signal(number) }

// processes starts processes and reaps every child, also those that it did not start: as PID 1, or as
// a subreaper, this process inherits orphans. mu makes start and registration one step for the reaper.
type processes struct {
	mu      sync.Mutex
	running map[int]*process
	term    chan struct{} // has room for one SIGTERM to this process
}

// process is a started process, which leads a group of its own. exit is valid once exited is closed.
type process struct {
	pid    int
	pidfd  *os.File // nil where the kernel has none
	exited chan struct{}
	exit   Exit
}

// newProcesses takes over all signals: a PID 1 that has a handler for none but those it chose would
// die of the others, and the application may send them.
func newProcesses() *processes {
	ps := &processes{running: map[int]*process{}, term: make(chan struct{}, 1)}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	go func() {
		for sig := range signals {
			switch sig {
			case syscall.SIGCHLD:
				ps.reap()
			case syscall.SIGTERM:
				ps.noteTerm()
			}
		}
	}()
	return ps
}

func (ps *processes) noteTerm() {
	select {
	case ps.term <- struct{}{}:
	default:
	}
}

func (ps *processes) reap() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if p := ps.running[pid]; p != nil {
			delete(ps.running, pid)
			p.exit = exitOf(status)
			close(p.exited)
		}
	}
}

func exitOf(status syscall.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Code: 128 + int(status.Signal()), Signal: unix.SignalName(status.Signal())}
	}
	return Exit{Code: status.ExitStatus()}
}

// start runs a command without privileges of the namespace, where confined is set.
func (ps *processes) start(spec Start, confined bool, stdin, stdout, stderr *os.File) (*process, error) {
	path, err := lookPath(spec)
	if err != nil {
		return nil, err
	}
	files := []*os.File{stdin, stdout, stderr}
	defer runtime.KeepAlive(files) // a file that is collected before the fork is closed: its number is not enough
	fds, err := descriptors(files)
	if err != nil {
		return nil, err
	}
	attr := &syscall.ProcAttr{Dir: spec.Dir, Env: spec.Env, Sys: groupAttr(spec.TTY)}
	for _, fd := range fds {
		// Go opens pipes and terminals non-blocking, and programs do not expect that of theirs.
		if err := syscall.SetNonblock(fd, false); err != nil {
			return nil, err
		}
		attr.Files = append(attr.Files, uintptr(fd))
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	pid, pidfd, err := fork(path, spec.Argv, attr, confined)
	if err != nil {
		return nil, fmt.Errorf("%s in %s cannot be started: %w", path, spec.Dir, err)
	}
	p := &process{pid: pid, pidfd: pidfd, exited: make(chan struct{})}
	ps.running[pid] = p
	return p, nil
}

// groupAttr asks for a group of its own, and for a session with a terminal where there is one.
func groupAttr(tty bool) *syscall.SysProcAttr {
	if tty {
		return &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}
	return &syscall.SysProcAttr{Setpgid: true}
}

// lookPath finds a program as a shell in the application's place would: its PATH, its folder.
func lookPath(spec Start) (string, error) {
	if len(spec.Argv) == 0 || spec.Argv[0] == "" {
		return "", errors.New("no command was given")
	}
	name := spec.Argv[0]
	if strings.Contains(name, "/") {
		return absolute(spec.Dir, name), nil
	}
	for _, dir := range filepath.SplitList(envValue(spec.Env, "PATH")) {
		path := filepath.Join(absolute(spec.Dir, dir), name)
		if fi, err := os.Stat(path); err == nil && !fi.IsDir() && fi.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func envValue(env []string, name string) string {
	value := ""
	for _, e := range env {
		if k, v, ok := strings.Cut(e, "="); ok && k == name {
			value = v
		}
	}
	return value
}

func (p *process) signalGroup(sig syscall.Signal) error { return syscall.Kill(-p.pid, sig) }

func (p *process) killGroup() { _ = p.signalGroup(syscall.SIGKILL) }

// groupExists counts zombies, which the reaper is about to collect.
func (p *process) groupExists() bool { return !errors.Is(p.signalGroup(0), syscall.ESRCH) }
