//go:build unix

package shim

import (
	"fmt"
	"net"
)

// openLoopback opens a listener for each name, on a free port of loopback.
func openLoopback(names []string) ([]socket, error) {
	var sockets []socket
	for _, name := range names {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, fmt.Errorf("a listener for %s: %w", name, err)
		}
		f, err := l.File()
		_ = l.Close()
		if err != nil {
			return nil, fmt.Errorf("a listener for %s: %w", name, err)
		}
		s := Socket{Name: name, Network: "tcp4", Address: l.Addr().String()}
		sockets = append(sockets, socket{s, f})
	}
	return sockets, nil
}
