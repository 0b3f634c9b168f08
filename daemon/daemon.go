// Package daemon is what Shoal's own long-lived processes, hub and node, have in common: a lock
// that says which one is in charge, an owner whose end is theirs, and sockets that outlive them when
// a new binary takes over.
//
// It stands beside the three walks. Its functions are safe for concurrent use; a [Sockets] is
// for the goroutine that sets a process up until Handover.
package daemon

import (
	"io"
	"os"
	"strconv"
)

// The environment of a process that another one started.
const (
	ownerEnv   = "SHOAL_OWNER"   // descriptor of a pipe: end of file means stop
	socketsEnv = "SHOAL_SOCKETS" // NAME=DESCRIPTOR, separated by commas
)

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
