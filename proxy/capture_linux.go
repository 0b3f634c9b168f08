package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ip6tOriginalDst is IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv6/ip6_tables.h.
const ip6tOriginalDst = 80

// originalDestination tells where a redirected connection was going (SO_ORIGINAL_DST of netfilter);
// for one that nothing redirected, where it arrived.
func originalDestination(c net.Conn) (netip.AddrPort, error) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("proxy: a captured connection is TCP, not %T", c)
	}
	rc, err := t.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("proxy: original destination: %w", err)
	}
	local, err := netip.ParseAddrPort(t.LocalAddr().String())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("proxy: original destination: %w", err)
	}
	at := local
	err = rc.Control(func(fd uintptr) {
		if local.Addr().Unmap().Is4() {
			at = original4(int(fd), local)
			return
		}
		at = original6(int(fd), local)
	})
	return at, err
}

func original4(fd int, local netip.AddrPort) netip.AddrPort {
	m, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, unix.SO_ORIGINAL_DST) // 20 bytes, of which sockaddr_in takes 16
	if err != nil {
		return local
	}
	b := m.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
}

func original6(fd int, local netip.AddrPort) netip.AddrPort {
	m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, ip6tOriginalDst) // begins with a sockaddr_in6
	if err != nil {
		return local
	}
	port := (*[2]byte)(unsafe.Pointer(&m.Addr.Port))
	return netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), uint16(port[0])<<8|uint16(port[1]))
}
