package shim

import (
	"errors"
	"net"
	"os"
	"strings"
)

// Windows passes no descriptors over Unix sockets: the node opens the listeners itself.

func writeFiles(c *net.UnixConn, b []byte, files []*os.File) (int, error) {
	if len(files) > 0 {
		return 0, errors.New("Windows cannot pass files between processes")
	}
	return c.Write(b)
}

func readFiles(c *net.UnixConn, b []byte) (int, []*os.File, error) {
	n, err := c.Read(b)
	return n, nil, err
}

// inheritListener opens the control socket, whose path is an argument.
func inheritListener(args []string) (*net.UnixListener, error) {
	for _, a := range args {
		if path, ok := strings.CutPrefix(a, "socket="); ok {
			return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		}
	}
	return nil, errors.New("no control socket was named")
}
