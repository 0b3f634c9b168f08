//go:build !linux

package h2

import "net"

// newTransport has nothing better than blocking calls here.
func newTransport(nc net.Conn) transport { return &plain{nc: nc} }
