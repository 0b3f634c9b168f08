//go:build !unix

package proxy

import (
	"fmt"
	"net"
)

// connPair returns the two ends of a connection within this process, over loopback.
func connPair() (near, far net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("proxy: loopback: %w", err)
	}
	defer l.Close()
	near, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, fmt.Errorf("proxy: loopback: %w", err)
	}
	for {
		far, err = l.Accept()
		if err != nil {
			near.Close()
			return nil, nil, fmt.Errorf("proxy: loopback: %w", err)
		}
		if far.RemoteAddr().String() == near.LocalAddr().String() {
			return near, far, nil
		}
		far.Close() // somebody else's
	}
}
