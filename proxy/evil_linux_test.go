package proxy_test

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// arrived waits until all that was written to c is with its peer's system.
func arrived(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw := must(c.SyscallConn())
	eventually(t, "what was written arrives", func() bool {
		left := 1
		_ = raw.Control(func(fd uintptr) { left, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		return left == 0
	})
}
