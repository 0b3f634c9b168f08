package daemon

import (
	"os"

	"golang.org/x/sys/unix"
)

// tryLock takes a lock of the open file (F_OFD_SETLK of fcntl(2)): like flock's it goes with the
// descriptor through fork and exec, and unlike that one it can be asked about without being taken.
func tryLock(f *os.File) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
}

// probe fails while a process holds the lock, and takes nothing.
func probe(f *os.File) error {
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return err
	}
	if l.Type != unix.F_UNLCK {
		return unix.EWOULDBLOCK
	}
	return nil
}
