package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalrun/shoal/sidecar/shim"
)

// check looks at a socket that a shim sent: its family and type, whether it listens, and that it is of
// the application's network namespace, not of this one. The first socket of a sidecar decides which
// that is.
func (s *Sidecar) check(f *os.File, network string, listening bool) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var bad error
	err = raw.Control(func(fd uintptr) { bad = s.checkFD(int(fd), network, listening) })
	return errors.Join(err, bad)
}

func (s *Sidecar) checkFD(fd int, network string, listening bool) error {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if strings.HasSuffix(network, "6") {
		family = unix.AF_INET6
	}
	if strings.HasPrefix(network, "udp") {
		kind, listening = unix.SOCK_DGRAM, false
	}
	for _, want := range []struct {
		option, value int
		what          string
	}{
		{unix.SO_DOMAIN, family, "family"},
		{unix.SO_TYPE, kind, "type"},
		{unix.SO_ACCEPTCONN, btoi(listening), "listening"},
	} {
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.option)
		if err != nil {
			return err
		}
		if got != want.value {
			return fmt.Errorf("for %s its %s is %d, not %d", network, want.what, got, want.value)
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	if !s.rec.netns() {
		return nil
	}
	return s.checkNamespace(fd)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// checkNamespace compares cookies, which kernels before 5.14 lack.
func (s *Sidecar) checkNamespace(fd int) error {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cookie == 0 && cookie != ownCookie() {
		s.cookie = cookie
	}
	if s.cookie != cookie {
		return errors.New("it is of another network namespace")
	}
	return nil
}

// ownCookie is that of this process's network namespace.
func ownCookie() uint64 {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	cookie, _ := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return cookie
}

// connect connects f and returns it as a connection of its own. It waits in the poller, not in a thread.
func connect(ctx context.Context, f *os.File, to netip.AddrPort) (*net.TCPConn, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })()
	begun := false
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		if !begun {
			begun = true
			failed = unix.Connect(int(fd), sockaddr(to))
			return !errors.Is(failed, unix.EINPROGRESS)
		}
		var done bool
		done, failed = connected(int(fd))
		return done
	})
	if err != nil {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	if failed != nil {
		return nil, os.NewSyscallError("connect "+to.String(), failed)
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("it is no TCP socket")
	}
	return tcp, tcp.SetNoDelay(true)
}

// connected reports whether a connect has come to an end, and which.
func connected(fd int) (done bool, failed error) {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return true, err
	}
	if code != 0 {
		return true, unix.Errno(code)
	}
	_, err = unix.Getpeername(fd)
	return err == nil, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// takePID learns the application's process id from its pidfd, the last file of an answer: the
// kernel shows it as this process's /proc numbers it (pidfd_open(2)).
func (s *Sidecar) takePID(a answer) {
	if a.Status == nil || !a.Status.PIDFD || len(a.files) != len(a.Status.Sockets)+1 {
		return
	}
	raw, err := a.files[len(a.files)-1].SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { s.pid = pidOf(int(fd)) })
}

func pidOf(pidfd int) int {
	info, err := os.Open("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0
	}
	defer info.Close()
	for lines := bufio.NewScanner(info); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "Pid:"); ok {
			pid, _ := strconv.Atoi(strings.TrimSpace(v))
			return max(pid, 0)
		}
	}
	return 0
}

// peerProcess returns the process at the other end, as the kernel knows it; nil if it is gone.
func peerProcess(c *shim.Conn) *os.Process {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	var cred *unix.Ucred
	err = raw.Control(func(fd uintptr) { cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || cred == nil || int(cred.Pid) == os.Getpid() || cred.Pid <= 1 {
		return nil
	}
	p, err := os.FindProcess(int(cred.Pid)) // holds a pidfd, so that it stays that process
	if err != nil {
		return nil
	}
	return p
}

func killPeer(c *shim.Conn) {
	if p := peerProcess(c); p != nil {
		_ = p.Kill()
	}
}
