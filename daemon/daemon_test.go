package daemon

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The test binary is also the process that the tests start.
func TestMain(m *testing.M) {
	switch os.Getenv("DAEMON_TEST") {
	case "hold":
		hold()
	case "serve":
		serve()
	default:
		os.Exit(m.Run())
	}
}

func hold() {
	if _, err := Lock(os.Args[1]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("locked")
	WaitOwner(Owner())
}

// serve accepts one connection on the socket that it inherited.
func serve() {
	s := NewSockets()
	if err := s.Lock(os.Args[1] + ".lock"); err != nil {
		panic(err)
	}
	l, err := s.Unix("peer", os.Args[1])
	if err != nil {
		panic(err)
	}
	c, err := l.Accept()
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(c, "from the successor")
	_ = c.Close()
}

func TestLockIsHeldByOneAndEndsWithIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], path)
	cmd.Env = append(os.Environ(), "DAEMON_TEST=hold", ownerEnv+"=0")
	cmd.Stdin = read
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the holder said %q", line)
	}
	if pid, locked := Locked(path); !locked || pid != cmd.Process.Pid {
		t.Errorf("Locked = %d, %v; want %d, true", pid, locked, cmd.Process.Pid)
	}
	if _, err := Lock(path); err == nil || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("a second Lock: %v; want an error that names process %d", err, cmd.Process.Pid)
	}
	_ = write.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the holder did not end with its owner: %v", err)
	}
	if _, locked := Locked(path); locked {
		t.Error("the lock outlived its holder")
	}
}

func TestSuccessorServesWhatQueued(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	mine := NewSockets()
	l, err := mine.Unix("peer", path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path) // queues: nobody accepts yet
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Lock(filepath.Join(t.TempDir(), "lock")); err != nil {
		t.Fatal(err)
	}
	files, err := mine.Files()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DAEMON_TEST", "serve")
	cmd, err := Spawn{Executable: os.Args[0], Args: []string{path}, Files: files}.Start()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	got, _ := io.ReadAll(c)
	if string(got) != "from the successor" {
		t.Errorf("got %q", got)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestTakenDefaultMovesAndFixedFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	s := NewSockets()
	if _, err := s.TCP("gateway", address, true); err == nil || !strings.Contains(err.Error(), "`gateway:`") {
		t.Errorf("a fixed address that is taken: %v", err)
	}
	l, err := s.TCP("gateway", address, false)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Addr().String() == address {
		t.Error("two listeners share one address")
	}
}
