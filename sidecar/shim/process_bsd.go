//go:build unix && !linux

package shim

import (
	"os"
	"syscall"
)

// fork starts a program. Nothing here confines: there are no namespaces.
func fork(path string, argv []string, attr *syscall.ProcAttr, _ bool) (int, *os.File, error) {
	pid, err := syscall.ForkExec(path, argv, attr)
	return pid, nil, err
}

func killNamespace() {}

// Orphans go to PID 1 here and cannot be found again: docs/modes.md says so.
func adoptOrphans() {}

func killChildren() {}

// KillSession does nothing: the members of a session cannot be listed here. docs/modes.md says so.
func KillSession(int) {}

// KillMarked does nothing: environments of other processes cannot be read here.
func KillMarked(...string) {}
