package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Sockets are the listeners of a process by name. A successor that was started with them accepts on
// the same sockets: connections queue meanwhile, and none is refused.
type Sockets struct {
	// Successor says, once the lock is taken, that another process handed it over.
	Successor bool

	mu        sync.Mutex // guards what follows: a socket may be opened late, while others are handed over
	inherited map[string]*os.File
	open      map[string]net.Listener
	lock      *os.File
}

// NewSockets takes over what the predecessor of this process handed to it, if there was one.
func NewSockets() *Sockets {
	s := &Sockets{inherited: make(map[string]*os.File), open: make(map[string]net.Listener)}
	for entry := range strings.SplitSeq(os.Getenv(socketsEnv), ",") {
		name, number, _ := strings.Cut(entry, "=")
		fd, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		keepFromChildren(fd)
		s.inherited[name] = os.NewFile(uintptr(fd), name)
	}
	_ = os.Unsetenv(socketsEnv) // not for the processes that this one starts
	return s
}

// File returns the file that a predecessor handed over under name, or nil. It is the caller's.
func (s *Sockets) File(name string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.inherited[name]
	delete(s.inherited, name)
	return f
}

// Unix listens at path, which only this uid may open, in place of whatever a dead process left there.
func (s *Sockets) Unix(name, path string) (net.Listener, error) {
	if l, err := s.take(name); l != nil || err != nil {
		return l, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // a successor may have it by then
	s.keep(name, l)
	return l, os.Chmod(path, 0o600)
}

// TCP listens at address. Where that is taken and fixed is false, it takes the next free port.
func (s *Sockets) TCP(name, address string, fixed bool) (net.Listener, error) {
	if l, err := s.take(name); l != nil || err != nil {
		return l, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil && !fixed {
		l, err = nextFree(address)
	}
	if err != nil {
		return nil, fmt.Errorf("the %s cannot listen on %s: %w; name another address with `%s:` in shoal.work", name, address, err, name)
	}
	s.keep(name, l)
	return l, nil
}

func (s *Sockets) keep(name string, l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[name] = l
}

// Default listens at address, at the port that an earlier process moved to from there, or at the next
// free port; where it had to move, the file at path remembers it.
func (s *Sockets) Default(name, address, path string) (net.Listener, error) {
	if last, err := os.ReadFile(path); err == nil {
		if l, err := s.TCP(name, strings.TrimSpace(string(last)), true); err == nil {
			return l, nil
		}
	}
	l, err := s.TCP(name, address, false)
	if err != nil || l.Addr().String() == address {
		return l, err
	}
	return l, os.WriteFile(path, []byte(l.Addr().String()+"\n"), 0o600)
}

// portsTried is how far the search for a free port goes.
const portsTried = 100

func nextFree(address string) (net.Listener, error) {
	host, number, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	first, err := strconv.Atoi(number)
	if err != nil {
		return nil, err
	}
	for port := first + 1; port <= min(first+portsTried, 65535); port++ {
		l, lerr := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if lerr == nil {
			return l, nil
		}
		err = lerr
	}
	return nil, err
}

func (s *Sockets) take(name string) (net.Listener, error) {
	f := s.File(name)
	if f == nil {
		return nil, nil
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the %s socket that the last process handed over: %w", name, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	s.keep(name, l)
	return l, nil
}

// Lock takes the lock at path as [Lock] does, or the one that a predecessor holds and handed over.
func (s *Sockets) Lock(path string) error {
	f := s.File(lockName)
	s.Successor = f != nil
	if f == nil {
		var err error
		if f, err = Lock(path); err != nil {
			return err
		}
	}
	s.lock = f
	return writeHolder(f)
}

// Names among the files that are handed over, besides the listeners'.
const (
	lockName  = "lock"
	readyName = "ready"
)

// Ready tells the predecessor, if there is one, that this process serves now.
func (s *Sockets) Ready() {
	f := s.File(readyName)
	if f == nil {
		return
	}
	_, _ = f.Write([]byte{1}) // a predecessor that is gone needs no telling
	_ = f.Close()
}

// Files returns what a successor needs by name: the lock, and a duplicate of every open listener.
func (s *Sockets) Files() (map[string]*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := map[string]*os.File{lockName: s.lock}
	for name, l := range s.open {
		filer, ok := l.(interface{ File() (*os.File, error) })
		if !ok {
			return files, fmt.Errorf("the %s socket cannot be handed over", name)
		}
		f, err := filer.File()
		if err != nil {
			return files, fmt.Errorf("the %s socket: %w", name, err)
		}
		files[name] = f
	}
	return files, nil
}

// Handover starts a successor with everything that this process listens on, and returns once the
// successor serves. An error means that there is none, and that this process is to go on.
func (s *Sockets) Handover(successor Spawn) error {
	files, err := s.Files()
	defer closeListeners(files)
	if err != nil {
		return err
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	files[readyName] = tell
	successor.Files = files
	cmd, err := successor.Start()
	if err != nil {
		return errors.Join(err, tell.Close())
	}
	_ = tell.Close() // the successor's copy is the last: its end ends the read
	go func() { _ = cmd.Wait() }()
	if n, _ := ready.Read(make([]byte, 1)); n == 0 {
		_ = writeHolder(s.lock) // it may have written itself; this one holds the lock on
		return fmt.Errorf("process %d, started from %s, ended before it served; its log says why", cmd.Process.Pid, successor.Executable)
	}
	return nil
}

// closeListeners closes duplicates; the lock is not one.
func closeListeners(files map[string]*os.File) {
	for name, f := range files {
		if name != lockName {
			_ = f.Close()
		}
	}
}

// environment sets NAME=VALUE in env, in place of what it held.
func environment(env []string, name, value string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, name+"=") })
	return append(env, name+"="+value)
}
