package api_test

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalrun/shoal/api"
)

// guardedPort is a port that is guarded: it says "in" to whom it lets in, and to others why not.
func guardedPort(t *testing.T, network, at string) net.Listener {
	t.Helper()
	raw, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	l := api.GuardTools(raw, func(c net.Conn, why error) {
		_, _ = io.WriteString(c, why.Error())
		c.Close()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "in")
			c.Close()
		}
	}()
	return raw
}

// heard dials, by a socket of that family, and returns what the port says.
func heard(family int, port int) (string, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	if family == unix.AF_INET6 { // 127.0.0.1, as Java dials it
		to = &unix.SockaddrInet6{Port: port, Addr: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}}
	}
	if err := unix.Connect(fd, to); err != nil {
		return "", err
	}
	text, err := io.ReadAll(f)
	return string(text), err
}

func TestToolsOfTheOperatorAreLetIn(t *testing.T) {
	for _, at := range []struct{ network, address string }{{"tcp4", "127.0.0.1:0"}, {"tcp", ":0"}} {
		port := guardedPort(t, at.network, at.address).Addr().(*net.TCPAddr).Port
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			if text, err := heard(family, port); text != "in" || err != nil {
				t.Errorf("%s, by family %d: %q %v", at.address, family, text, err)
			}
		}
	}
	l := guardedPort(t, "tcp6", "[::1]:0")
	c, err := net.Dial("tcp6", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if text, err := io.ReadAll(c); string(text) != "in" || err != nil {
		t.Errorf("IPv6: %q %v", text, err)
	}
}

// TestAbandonedConnectionIsNobodys closes a connection before it is accepted: the kernel gives such a socket to root.
func TestAbandonedConnectionIsNobodys(t *testing.T) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c, err := net.Dial("tcp", raw.Addr().String())
	if err == nil {
		_, err = io.WriteString(c, "do as I say")
		c.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error)
	go func() {
		_, _ = api.GuardTools(raw, func(c net.Conn, why error) { c.Close(); refused <- why }).Accept()
	}()
	if why := <-refused; !strings.Contains(why.Error(), "closed") {
		t.Errorf("refused, since %v", why)
	}
}

func TestToolsOfAnotherUserAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	program := strangersProgram(t)
	for _, at := range []string{"127.0.0.1:0", ":0"} {
		l := guardedPort(t, "tcp", at)
		for _, family := range []string{"4", "6"} {
			_, port, _ := net.SplitHostPort(l.Addr().String())
			cmd := exec.Command(program)
			cmd.Env = []string{"API_TEST_TOOL=" + family + " " + port}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "operator's") || !strings.Contains(string(out), "65534") {
				t.Errorf("%s by IPv%s: %v %s", at, family, err, out)
			}
		}
	}
}

// strangersProgram copies this binary to where every user may run it.
func strangersProgram(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "dial")
	binary, err := os.ReadFile(os.Args[0])
	if err := errors.Join(err, os.WriteFile(program, binary, 0o755), os.Chmod(program, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return program
}
