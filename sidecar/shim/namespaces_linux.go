package shim

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Ports in the namespace of an application, above what the kernel gives to its connections. An
// application cannot listen there.
const (
	capturePort = 65001
	dnsPort     = 65053
)

// inboundMark marks the sockets that are handed out for calls to the application. It takes
// CAP_NET_ADMIN to set one, which the application lacks.
const inboundMark = 0x5ea1

// inNamespaces makes the child the PID 1 of new namespaces, with the capabilities that setting them up
// needs: as another uid than 0 it has them by being ambient only.
func inNamespaces(attr *syscall.SysProcAttr) error {
	attr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SETPCAP}
	return nil
}

// setUpNamespaces makes the application's view of files and network, and the sockets in it. An error
// begins with the step that failed, which Probe looks for.
func setUpNamespaces(c *Setup) ([]socket, error) {
	var sockets []socket
	steps := []struct {
		name string
		do   func() error
	}{
		{"mounts", func() error { return mountAll(c) }},
		{"addresses", func() error { return bringUp(c) }},
		{"sysctls", func() error { writeSysctls(); return nil }},
		{"rules", func() error { return installRules(c) }},
		{"sockets", func() (err error) { sockets, err = openSockets(c.Addr6.IsValid()); return err }},
		{"shield", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return sockets, nil
}

// bringUp gives lo addresses and the default routes, whose source they are: without one, answers to
// what was redirected are lost. Where the kernel has no IPv6, the setup goes on without.
func bringUp(c *Setup) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	if err := routeAll(lo, c.Addr4, netip.IPv4Unspecified()); err != nil {
		return err
	}
	enableIPv6()
	if c.Addr6.IsValid() && routeAll(lo, c.Addr6, netip.IPv6Unspecified()) != nil {
		c.Addr6 = netip.Addr{}
	}
	return nil
}

// routeAll sends everything of a family to lo, from addr.
func routeAll(lo netlink.Link, addr, everything netip.Addr) error {
	host := netlink.Addr{IPNet: netlink.NewIPNet(addr.AsSlice()), Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrAdd(lo, &host); err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	all := netlink.NewIPNet(everything.AsSlice())
	all.Mask = make([]byte, len(all.Mask))
	err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Src: addr.AsSlice(), Scope: unix.RT_SCOPE_UNIVERSE})
	if err != nil {
		return fmt.Errorf("default route from %s: %w", addr, err)
	}
	return nil
}

func enableIPv6() {
	for _, who := range []string{"all", "lo"} {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+who+"/disable_ipv6", []byte("0"), 0)
	}
}

// writeSysctls sets what makes a namespace good for many connections. Kernels lack some of the files,
// and then their default holds.
func writeSysctls() {
	for name, value := range map[string]string{
		"ipv4/ip_unprivileged_port_start": "0", // the application may listen on port 80
		"ipv4/tcp_tw_reuse":               "1",
		"ipv4/ping_group_range":           "1 0",
		// Closed connections are kept for 120 s by default, which caps new ones at about 2,000 a second.
		"netfilter/nf_conntrack_tcp_timeout_time_wait":  "5",
		"netfilter/nf_conntrack_tcp_timeout_fin_wait":   "10",
		"netfilter/nf_conntrack_tcp_timeout_close_wait": "10",
		"netfilter/nf_conntrack_tcp_timeout_close":      "1",
		"netfilter/nf_conntrack_udp_timeout":            "5",
		"netfilter/nf_conntrack_udp_timeout_stream":     "5",
	} {
		_ = os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	}
}

// openSockets opens the sockets that the node serves.
func openSockets(v6 bool) ([]socket, error) {
	wanted := []Socket{
		{Name: SocketCapture, Network: "tcp4"},
		{Name: SocketDNS, Network: "udp4"},
		{Name: SocketDNS, Network: "tcp4"},
	}
	if v6 {
		wanted = append(wanted,
			Socket{Name: SocketCapture, Network: "tcp6"},
			Socket{Name: SocketDNS, Network: "udp6"},
			Socket{Name: SocketDNS, Network: "tcp6"})
	}
	var sockets []socket
	for _, w := range wanted {
		s, err := openSocket(w)
		if err != nil {
			return nil, fmt.Errorf("%s over %s: %w", w.Name, w.Network, err)
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

func openSocket(w Socket) (socket, error) {
	port, kind := capturePort, unix.SOCK_STREAM
	if w.Name == SocketDNS {
		port = dnsPort
	}
	if w.Network[:3] == "udp" {
		kind = unix.SOCK_DGRAM
	}
	family, to, host := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}), "127.0.0.1:"
	if w.Network[3:] == "6" {
		family, to, host = unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: netip.IPv6Loopback().As16()}, "[::1]:"
	}
	w.Address = host + strconv.Itoa(port)
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return socket{}, err
	}
	f := os.NewFile(uintptr(fd), w.Name)
	err = unix.Bind(fd, to)
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, 4096)
	}
	if err != nil {
		_ = f.Close()
		return socket{}, err
	}
	return socket{w, f}, nil
}

// openUnconnected opens a socket that the node connects to the application.
func openUnconnected(network string) (*os.File, error) {
	family := unix.AF_INET
	if network == "tcp6" {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, inboundMark); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), network), nil
}
