//go:build unix

package shim

import (
	"net"
	"os"
	"os/exec"
	"syscall"
)

// sessionAttr puts a shim into a session of its own: a terminal's Ctrl-C reaches only the CLI.
func sessionAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func shell(command string) []string { return []string{"/bin/sh", "-c", command} }

// Shell returns the words that run a shell command.
func Shell(command string) []string { return shell(command) }

// passed is a control socket on its way to a shim.
type passed struct {
	l *net.UnixListener
	f *os.File
}

func (p passed) close() {
	_ = p.f.Close()
	_ = p.l.Close()
}

// passListener opens the control socket as descriptor 3 of cmd, so that it can be dialed at once.
func (s Spawn) passListener(cmd *exec.Cmd) (passed, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.Socket, Net: "unix"})
	if err != nil {
		return passed{}, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(s.Socket, 0o600); err != nil {
		_ = l.Close()
		return passed{}, err
	}
	f, err := l.File()
	if err != nil {
		_ = l.Close()
		return passed{}, err
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	return passed{l, f}, nil
}

func (s Spawn) connect() (*Conn, error) { return Dial(s.Socket) }
