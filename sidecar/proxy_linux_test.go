package sidecar

import (
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// originalOf returns where a captured connection was meant to go.
func originalOf(c net.Conn) string {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err.Error()
	}
	var b [28]byte
	size := uint32(len(b))
	level := uintptr(unix.IPPROTO_IP)
	if c.LocalAddr().(*net.TCPAddr).IP.To4() == nil {
		level = unix.IPPROTO_IPV6
	}
	_ = raw.Control(func(fd uintptr) {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, level, unix.SO_ORIGINAL_DST,
			uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			err = errno
		}
	})
	if err != nil {
		return err.Error()
	}
	port := uint16(b[2])<<8 | uint16(b[3])
	if level == unix.IPPROTO_IPV6 {
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), port).String()
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port).String()
}
