package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime reads the CPU clock of a process: user and system time of all its threads, in nanoseconds
// (clock_getcpuclockid(3)).
func CPUTime(pid int) (time.Duration, error) {
	const schedule = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedule), &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Resident reads how many bytes of memory a process occupies (proc_pid_statm(5)).
func Resident(pid int) (int, error) {
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

// FamilyCPU is the CPU time of a process, of all that descend from it, and of the kernel's threads, so far:
// what the whole machine does for it. Those that have ended are not in it.
func FamilyCPU(pid int) (sum time.Duration, err error) {
	parents, err := parents()
	if err != nil {
		return 0, err
	}
	const kernelThreads = 2
	for p := range parents {
		if !descends(parents, p, pid) && !descends(parents, p, kernelThreads) {
			continue
		}
		if t, err := CPUTime(p); err == nil { // else it has just ended
			sum += t
		}
	}
	return sum, nil
}

// parents maps each process to its parent (proc_pid_stat(5)).
func parents() (map[int]int, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := map[int]int{}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + d.Name() + "/stat")
		if err != nil {
			continue // it has just ended
		}
		var state string
		var parent int
		_, after, _ := strings.Cut(string(text), ") ")
		if _, err := fmt.Sscan(after, &state, &parent); err == nil {
			all[pid] = parent
		}
	}
	return all, nil
}

func descends(parents map[int]int, pid, from int) bool {
	for ; pid > 0; pid = parents[pid] {
		if pid == from {
			return true
		}
	}
	return false
}

// EndWithParent: nothing is left if this program is killed.
func EndWithParent(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
