package shim

import (
	"fmt"
	"net"
	"os"
	"os/exec"
)

// Spawn is how a node starts a shim.
type Spawn struct {
	Executable string
	Socket     string   // path of the control socket; 107 bytes at most (unix(7))
	Netns      bool     // in namespaces of its own
	Owner      *os.File // a pipe whose end of file ends the shim; nil: it outlives this process
	Log        *os.File // takes what the shim itself has to say, if it fails
}

// Start starts a shim and connects to it. The command is the caller's to wait for.
func (s Spawn) Start() (*exec.Cmd, *Conn, error) {
	_ = os.Remove(s.Socket)
	cmd := exec.Command(s.Executable, "shim")
	cmd.Env, cmd.Stderr, cmd.SysProcAttr = bareEnv(), s.Log, sessionAttr()
	if s.Netns {
		if err := inNamespaces(cmd.SysProcAttr); err != nil {
			return nil, nil, err
		}
	}
	l, err := s.passListener(cmd)
	if err != nil {
		return nil, nil, fmt.Errorf("a control socket at %s: %w", s.Socket, err)
	}
	if s.Owner != nil {
		cmd.Args = append(cmd.Args, argOwned)
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.Owner)
	}
	err = cmd.Start()
	l.close()
	if err != nil {
		_ = os.Remove(s.Socket)
		return nil, nil, err
	}
	c, err := s.connect()
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, nil, fmt.Errorf("the shim does not answer: %w", err)
	}
	return cmd, c, nil
}

// Dial connects to the control socket of a shim that runs already.
func Dial(socket string) (*Conn, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return NewConn(c), nil
}
