package workspace_test

import (
	"fmt"
	"net"
	"os/exec"
	"testing"
	"time"
)

// daemon serves the repositories of a place by git's own protocol, and returns the URL of their folder.
func daemon(t *testing.T, p *place) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("git", "daemon", "--export-all", "--listen=127.0.0.1", fmt.Sprintf("--port=%d", port), "--base-path="+p.dir, p.dir)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return "git://" + address
		}
		if time.Now().After(end) {
			t.Skipf("git daemon does not answer: %v", err)
		}
	}
}
