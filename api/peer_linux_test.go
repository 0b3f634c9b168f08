package api_test

import (
	"context"
	"fmt"
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

const nobody = 65534

// The test binary is also the stranger that dials.
func TestMain(m *testing.M) {
	if family, address, ok := strings.Cut(os.Getenv("API_TEST_TOOL"), " "); ok {
		beTool(family, address)
	}
	socket := os.Getenv("API_TEST_DIAL")
	if socket == "" {
		os.Exit(m.Run())
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		os.Exit(3)
	}
	if n, _ := conn.Read(make([]byte, 1)); n > 0 {
		os.Exit(4)
	}
	os.Exit(0) // closed without a word
}

// beTool prints what a port says to this process.
func beTool(family, address string) {
	how := map[string]int{"4": unix.AF_INET, "6": unix.AF_INET6}[family]
	text, err := heard(how, address)
	fmt.Println(text, err)
	os.Exit(0)
}

func TestAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	program := strangersProgram(t)
	socket := filepath.Join(filepath.Dir(program), "s")
	l, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	// The mode alone would keep a stranger out; here it is the credentials' turn.
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, l, (&api.Server{Process: api.Hub}).Handler()) }()
	cmd := exec.Command(program)
	cmd.Env = []string{"API_TEST_DIAL=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("uid %d: %v %s", nobody, err, out)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
