//go:build !linux

package harness

import (
	"errors"
	"os/exec"
	"time"
)

// CPUTime is for Linux.
func CPUTime(int) (time.Duration, error) {
	return 0, errors.New("the CPU time of another process is measured on Linux only")
}

// Resident is for Linux.
func Resident(int) (int, error) {
	return 0, errors.New("the memory of another process is measured on Linux only")
}

// FamilyCPU is for Linux.
func FamilyCPU(int) (time.Duration, error) { return CPUTime(0) }

// EndWithParent is for Linux.
func EndWithParent(*exec.Cmd) {}
