package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime reads the CPU clock of a process: user and system time of all its threads, in nanoseconds
// (clock_getcpuclockid(3)).
func cpuTime(pid int) (time.Duration, error) {
	const schedule = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedule), &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// resident reads how many bytes of memory a process occupies (proc_pid_statm(5)).
func resident(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, pages int
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		return 0, errors.New("the memory of a process is not to be read from statm")
	}
	return pages * os.Getpagesize(), nil
}

// endWithParent: nothing is left if this program is killed.
func endWithParent(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
