//go:build !linux

package main

import (
	"errors"
	"os/exec"
	"time"
)

func cpuTime(int) (time.Duration, error) {
	return 0, errors.New("the CPU time of another process is measured on Linux only")
}

func endWithParent(*exec.Cmd) {}
