package daemon

import (
	"os"
	"syscall"
)

// ownSession keeps a console's Ctrl-C from the process: only the CLI is to get it.
func ownSession() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// terminate kills: Windows has no way to ask.
func terminate(p *os.Process) error { return p.Kill() }
