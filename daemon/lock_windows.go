package daemon

import (
	"os"

	"golang.org/x/sys/windows"
)

// tryLock locks one byte far behind the process id, which others must be able to read.
func tryLock(f *os.File) error {
	at := &windows.Overlapped{OffsetHigh: 1}
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
}
