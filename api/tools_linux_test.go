package api_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// heard dials, by a socket of that family, and returns what the port says. An IPv4 address by a socket of IPv6 is how Java dials it.
func heard(family int, address string) (string, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	var to unix.Sockaddr
	if family == unix.AF_INET {
		to = &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	} else {
		to = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	if err := unix.Connect(fd, to); err != nil {
		return "", err
	}
	text, err := io.ReadAll(f)
	return string(text), err
}

// portOf is a listener's port, at an address.
func portOf(l net.Listener, address string) string {
	return net.JoinHostPort(address, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

func TestToolsOfTheOperatorAreLetIn(t *testing.T) {
	for _, at := range []struct{ network, address string }{{"tcp4", "127.0.0.1:0"}, {"tcp", ":0"}} {
		port := portOf(guardedPort(t, at.network, at.address), "127.0.0.1")
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
			if out, err := stranger(program, family, portOf(l, "127.0.0.1")); err != nil || !strings.Contains(out, "it takes processes of root (uid 0), and this one is of ") || !strings.Contains(out, "65534") {
				t.Errorf("%s by IPv%s: %v %s", at, family, err, out)
			}
		}
	}
}

// stranger has another user dial, and returns what the port says.
func stranger(program, family, address string) (string, error) {
	cmd := exec.Command(program)
	cmd.Env = []string{"API_TEST_TOOL=" + family + " " + address}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestToolsFromElsewhere opens a port to an address that is not loopback: who comes from another machine, here another network namespace, is let in, since
// nobody here can say who that is. Who dials that address from here is asked for as on loopback.
func TestToolsFromElsewhere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a network namespace")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip: apt-get install iproute2")
	}
	const here, there = "198.51.100.1", "198.51.100.2" // RFC 5737
	name := fmt.Sprintf("to%d", os.Getpid()%100000)
	t.Cleanup(func() {
		_ = exec.Command("ip", "link", "del", name+"-a").Run()
		_ = exec.Command("ip", "netns", "del", name).Run()
	})
	for _, words := range []string{"netns add NAME", "link add NAME-a type veth peer name NAME-b netns NAME", "addr add " + here + "/30 dev NAME-a", "link set NAME-a up",
		"-n NAME addr add " + there + "/30 dev NAME-b", "-n NAME link set NAME-b up"} {
		if out, err := exec.Command("ip", strings.Fields(strings.ReplaceAll(words, "NAME", name))...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v %s", words, err, out)
		}
	}
	program := strangersProgram(t)
	for at, family := range map[string]string{":0": "6", here + ":0": "4"} {
		port := portOf(guardedPort(t, "tcp", at), here)
		cmd := exec.Command("ip", "netns", "exec", name, program)
		cmd.Env = append(os.Environ(), "API_TEST_TOOL="+family+" "+port)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "in ") {
			t.Errorf("from elsewhere to %s by IPv%s: %v %s", at, family, err, out)
		}
		if out, err := stranger(program, family, port); err != nil || !strings.Contains(out, "operator's") {
			t.Errorf("a stranger to %s by IPv%s: %v %s", at, family, err, out)
		}
		if text, err := heard(unix.AF_INET, port); text != "in" || err != nil {
			t.Errorf("the operator to %s: %q %v", at, text, err)
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
