package api

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// peerUID returns the uid of the process at the other end of a TCP connection. It is errElsewhere where that end is not on this
// machine and in this network namespace.
func peerUID(c net.Conn) (uint32, error) {
	local, _ := c.LocalAddr().(*net.TCPAddr)
	remote, _ := c.RemoteAddr().(*net.TCPAddr)
	if local == nil || remote == nil {
		return 0, errors.New("it is not of TCP")
	}
	ask := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	ask.AddData(socketOf{local: remote, remote: local})
	answers, err := ask.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	switch {
	case errors.Is(err, unix.ENOENT) && !remote.IP.IsLoopback():
		return 0, errElsewhere
	case err != nil:
		return 0, fmt.Errorf("the kernel was asked for its socket (sock_diag): %w", err)
	case len(answers) != 1:
		return 0, fmt.Errorf("the kernel has %d sockets for it", len(answers))
	}
	return ownerIn(answers[0])
}

// socketOf asks for the one socket of TCP with these addresses: struct inet_diag_req_v2 of linux/inet_diag.h.
type socketOf struct{ local, remote *net.TCPAddr }

func (socketOf) Len() int { return 56 }

func (s socketOf) Serialize() []byte {
	out := make([]byte, s.Len())
	from, to := s.local.IP.To4(), s.remote.IP.To4()
	out[0], out[1] = unix.AF_INET, unix.IPPROTO_TCP
	if from == nil || to == nil {
		out[0], from, to = unix.AF_INET6, s.local.IP.To16(), s.remote.IP.To16()
	}
	binary.NativeEndian.PutUint32(out[4:], 1<<32-1) // in whatever state
	binary.BigEndian.PutUint16(out[8:], uint16(s.local.Port))
	binary.BigEndian.PutUint16(out[10:], uint16(s.remote.Port))
	copy(out[12:28], from)
	copy(out[28:44], to)
	copy(out[48:56], "\xff\xff\xff\xff\xff\xff\xff\xff") // whatever its cookie
	return out
}

// ownerIn reads whose a socket is: struct inet_diag_msg of linux/inet_diag.h. A socket without an inode was closed by its process
// and lives on in the kernel, as root's: whose it was is not known, and nobody waits for an answer. Where the socket is gone the kernel
// answers with one that listens on its port, which may be anybody's.
func ownerIn(answer []byte) (uint32, error) {
	if len(answer) < 72 {
		return 0, fmt.Errorf("the kernel's answer has %d bytes", len(answer))
	}
	const listening = 10 // TCP_LISTEN of linux/tcp_states.h
	inode := binary.NativeEndian.Uint32(answer[68:])
	if inode == 0 || answer[1] == listening {
		return 0, errors.New("its process has closed it")
	}
	return binary.NativeEndian.Uint32(answer[64:]), nil
}
