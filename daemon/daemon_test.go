package daemon

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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
	cmd, end := startHolder(t, path)
	if pid, locked := Locked(path); !locked || pid != cmd.Process.Pid {
		t.Errorf("Locked = %d, %v; want %d, true", pid, locked, cmd.Process.Pid)
	}
	if _, err := Lock(path); err == nil || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("a second Lock: %v; want an error that names process %d", err, cmd.Process.Pid)
	}
	end()
	if !cmd.ProcessState.Success() {
		t.Fatalf("the holder did not end with its owner: %v", cmd.ProcessState)
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

// startHolder starts a process that holds the lock at path until end is called.
func startHolder(t *testing.T, path string) (cmd *exec.Cmd, end func()) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd = exec.Command(os.Args[0], path)
	cmd.Env = append(os.Environ(), "DAEMON_TEST=hold", ownerEnv+"=0")
	cmd.Stdin, cmd.Stderr = read, os.Stderr
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the holder said %q", line)
	}
	end = sync.OnceFunc(func() {
		_ = write.Close()
		_ = cmd.Wait()
	})
	t.Cleanup(end)
	return cmd, end
}

// Whoever asks whether a lock is held, however often, keeps nobody from taking it.
func TestProbesAreInNobodysWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if f, err := Lock(path); err != nil {
		t.Fatal(err)
	} else {
		_ = f.Close() // its holder lives on, and so is believed at first
	}
	ctx, cancel := context.WithCancel(t.Context())
	var probes sync.WaitGroup
	for range 4 {
		probes.Go(func() {
			for ctx.Err() == nil {
				Locked(path)
			}
		})
	}
	for range 50 {
		f, err := Lock(path)
		if err != nil {
			t.Error(err)
			break
		}
		if pid, locked := Locked(path); !locked || pid != os.Getpid() {
			t.Errorf("Locked = %d, %v while this process holds it", pid, locked)
		}
		_ = f.Close()
	}
	cancel()
	probes.Wait()
}

// What a dead holder wrote is not taken for the id of the next one.
func TestOnlyALivingHoldersIDIsBelieved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, _ := startHolder(t, path)
	_ = first.Process.Kill()
	_ = first.Wait()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := tryLock(f); err != nil { // as one that has not written itself yet
		t.Fatal(err)
	}
	if pid, locked := Locked(path); !locked || pid != 0 {
		t.Errorf("Locked = %d, %v; want an unknown process", pid, locked)
	}
	if err := writeHolder(f); err != nil {
		t.Fatal(err)
	}
	if pid, _ := Locked(path); pid != os.Getpid() {
		t.Errorf("Locked = %d; want %d", pid, os.Getpid())
	}
}

func TestEndEndsWhoeverHoldsTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := End(path); err != nil {
		t.Errorf("nobody holds it: %v", err)
	}
	cmd, _ := startHolder(t, path)
	if err := End(path); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended by itself")
	}
}
