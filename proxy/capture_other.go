//go:build !linux

package proxy

import (
	"errors"
	"net"
	"net/netip"
)

// originalDestination: only Linux redirects connections; elsewhere sidecars are explicit.
func originalDestination(net.Conn) (netip.AddrPort, error) {
	return netip.AddrPort{}, errors.New("proxy: connections are captured on Linux only; use explicit listeners")
}
