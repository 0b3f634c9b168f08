package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Windows has no signals: TERM is CTRL_BREAK, which console programs may handle, and KILL ends the job
// object that holds the command and what it started. The job ends with this process, too.

type signalNumber int

const (
	signalTerm signalNumber = 15
	signalKill signalNumber = 9
)

func signalOf(number int) signalNumber { return signalNumber(number) }

type processes struct{ term chan struct{} }

type process struct {
	pid    int
	pidfd  *os.File
	job    windows.Handle
	mu     sync.Mutex
	ended  bool
	exited chan struct{}
	exit   Exit
}

func newProcesses() *processes { return &processes{} }

func (ps *processes) start(spec Start, _ bool, stdin, stdout, stderr *os.File) (*process, error) {
	if len(spec.Argv) == 0 {
		return nil, errors.New("no command was given")
	}
	job, err := newJob()
	if err != nil {
		return nil, fmt.Errorf("a job object: %w", err)
	}
	cmd := exec.Command(spec.Argv[0], spec.Argv[1:]...)
	cmd.Dir, cmd.Env = spec.Dir, spec.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
	if err := cmd.Start(); err != nil {
		_ = windows.CloseHandle(job)
		return nil, err
	}
	if err := assign(job, cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		_ = windows.CloseHandle(job)
		return nil, fmt.Errorf("a job object: %w", err)
	}
	p := &process{pid: cmd.Process.Pid, job: job, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		p.exit = Exit{Code: cmd.ProcessState.ExitCode()}
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		close(p.exited)
	}()
	return p, nil
}

// newJob returns a job object whose processes end when its last handle is closed.
func newJob() (windows.Handle, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return 0, err
	}
	var info windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	info.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	_, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	return job, err
}

func assign(job windows.Handle, pid int) error {
	h, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(pid))
	if err != nil {
		return err
	}
	defer windows.CloseHandle(h)
	return windows.AssignProcessToJobObject(job, h)
}

func (p *process) signalGroup(sig signalNumber) error {
	if sig == signalKill {
		return windows.TerminateJobObject(p.job, 137)
	}
	return windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(p.pid))
}

func (p *process) killGroup() { _ = p.signalGroup(signalKill) }

func (p *process) groupExists() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.ended
}

func killNamespace() {}

func adoptOrphans() {}

func killChildren() {}

// KillSession does nothing: the job object has done it.
func KillSession(int) {}

// KillMarked does nothing: the job object has done it.
func KillMarked(...string) {}
