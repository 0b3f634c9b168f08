package shim

import (
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
)

const connectTime = 10 * time.Second

func sessionAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

func shell(command string) []string { return []string{"cmd.exe", "/C", command} }

// Shell returns the words that run a shell command.
func Shell(command string) []string { return shell(command) }

type passed struct{}

func (passed) close() {}

// passListener names the control socket, which the shim opens itself.
func (s Spawn) passListener(cmd *exec.Cmd) (passed, error) {
	cmd.Args = append(cmd.Args, "socket="+s.Socket)
	return passed{}, nil
}

// connect waits for the shim to have opened its socket.
func (s Spawn) connect() (*Conn, error) {
	for deadline := time.Now().Add(connectTime); ; time.Sleep(pollGroup) {
		c, err := Dial(s.Socket)
		if err == nil || time.Now().After(deadline) {
			return c, err
		}
	}
}
