package workspace_test

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// daemon serves the repositories of a place by git's own protocol, and returns the URL of their folder.
func daemon(t *testing.T, p *place) string {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	git := filepath.Join(strings.TrimSpace(string(out)), "git-daemon")
	if _, err := exec.LookPath(git); err != nil {
		t.Skipf("git has no daemon here: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serveGit(t, git, p.dir, c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return "git://" + l.Addr().String()
}

// serveGit serves one connection.
func serveGit(t *testing.T, git, dir string, c net.Conn) {
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	cmd := exec.Command(git, "--inetd", "--export-all", "--base-path="+dir, dir)
	cmd.Stdin, cmd.Stdout = f, f
	if err := cmd.Run(); err != nil {
		t.Log("git daemon:", err) // what a client refused is the client's to say
	}
}
