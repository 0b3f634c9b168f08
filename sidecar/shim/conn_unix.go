//go:build unix

package shim

import (
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
)

func writeFiles(c *net.UnixConn, b []byte, files []*os.File) (int, error) {
	if len(files) == 0 {
		return c.Write(b)
	}
	fds, err := descriptors(files)
	if err != nil {
		return 0, err
	}
	defer runtime.KeepAlive(files) // a file that is collected before is closed
	n, _, err := c.WriteMsgUnix(b, syscall.UnixRights(fds...), nil)
	return n, err
}

// descriptors does not use Fd, which may put a file into blocking mode.
func descriptors(files []*os.File) ([]int, error) {
	fds := make([]int, 0, len(files))
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return nil, err
		}
		if err := raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) }); err != nil {
			return nil, err
		}
	}
	return fds, nil
}

func readFiles(c *net.UnixConn, b []byte) (int, []*os.File, error) {
	oob := make([]byte, syscall.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil || oobn == 0 {
		return n, nil, err
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return n, nil, err
	}
	var files []*os.File
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials, which nobody asked for
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return n, files, nil
}

// inheritListener returns the control socket, which the node opened as descriptor 3.
func inheritListener([]string) (*net.UnixListener, error) {
	f := os.NewFile(3, "control")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, syscall.ENOTSOCK
	}
	u.SetUnlinkOnClose(false)
	return u, sign(u)
}

// sign calls listen again: the peer credentials that a connecting node sees are those of the process
// that last called it (unix(7), SO_PEERCRED), and so the kernel tells a later node which process this is.
func sign(l *net.UnixListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var listenErr error
	if err := raw.Control(func(fd uintptr) { listenErr = syscall.Listen(int(fd), 16) }); err != nil {
		return err
	}
	return listenErr
}
