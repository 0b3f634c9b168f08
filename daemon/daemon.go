// Package daemon is what Shoal's own long-lived processes, hub and node, have in common: a lock
// that says which one is in charge, an owner whose end is theirs, and sockets that outlive them when
// a new binary takes over.
//
// It stands beside the three walks. Its functions are safe for concurrent use; a [Sockets] is
// for the goroutine that sets a process up until Handover.
package daemon

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// The environment of a process that another one started.
const (
	ownerEnv   = "SHOAL_OWNER"   // descriptor of a pipe: end of file means stop
	socketsEnv = "SHOAL_SOCKETS" // NAME=DESCRIPTOR, separated by commas
)

// Lock takes the lock file at path for this process and writes its id into it. Where another process
// holds it, the error names that one. The lock ends with the process, or with the last one
// that inherited the file.
func Lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := tryLock(f); err != nil {
		defer f.Close()
		return nil, fmt.Errorf("%s is held by process %s; stop that one first with `shoal down`", path, readPID(f))
	}
	return f, writePID(f)
}

// Locked reports whether a process holds the lock file at path, and its id.
func Locked(path string) (pid int, locked bool) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	if tryLock(f) == nil {
		return 0, false
	}
	pid, _ = strconv.Atoi(readPID(f))
	return pid, true
}

// Terminate asks the process that holds the lock file at path to end, if there is one.
func Terminate(path string) error {
	pid, locked := Locked(path)
	if !locked || pid <= 0 {
		return nil
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return terminate(p)
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func readPID(f *os.File) string {
	b := make([]byte, 16)
	n, _ := f.ReadAt(b, 0)
	if pid := strings.TrimSpace(string(b[:n])); pid != "" {
		return pid
	}
	return "of unknown id"
}

// Owner returns the pipe whose end of file means that this process's owner is gone, or nil for a
// process that has none.
func Owner() *os.File {
	fd, err := strconv.Atoi(os.Getenv(ownerEnv))
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "owner")
}

// WaitOwner returns once the owner is gone. It reads owner, which nobody else may.
func WaitOwner(owner io.Reader) {
	_, _ = io.Copy(io.Discard, owner) // an error, too, means that nobody writes any more
}
