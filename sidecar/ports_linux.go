package sidecar

import (
	"errors"
	"io"
	"net"
	"strconv"
	"syscall"
)

// claimPort keeps other fleets of this host from handing out a port; false where one has it. The claim is an
// abstract Unix socket (unix(7)): it belongs to the network namespace, as ports do, and ends with its
// process.
func claimPort(port uint16) (io.Closer, bool) {
	l, err := net.Listen("unix", "@shoal/port/"+strconv.Itoa(int(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return noClaim{}, false
	}
	if err != nil {
		return noClaim{}, true // a system that has no such sockets
	}
	return l, true
}
