//go:build unix

package proxy

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// connPair returns the two ends of a connection within this process. They are sockets, so that all
// that watches and splices sockets serves them too.
func connPair() (near, far net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("proxy: socketpair: %w; raise the limit of open files", err)
	}
	near, err = fromDescriptor(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	far, err = fromDescriptor(fds[1])
	if err != nil {
		near.Close()
		return nil, nil, err
	}
	return near, far, nil
}

// fromDescriptor takes fd over.
func fromDescriptor(fd int) (net.Conn, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	return net.FileConn(f)
}
