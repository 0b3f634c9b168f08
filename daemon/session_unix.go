//go:build unix

package daemon

import (
	"os"
	"syscall"
)

// ownSession keeps a terminal's Ctrl-C from the process: only the CLI is to get it.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
