package daemon

import (
	"os"

	"golang.org/x/sys/windows"
)

func tryLock(f *os.File) error { return lockFile(f, windows.LOCKFILE_EXCLUSIVE_LOCK) }

// probe fails while a process holds the lock. What it takes, shared with other probes, ends with the file.
func probe(f *os.File) error { return lockFile(f, 0) }

// lockFile locks one byte far behind the process id, which others must be able to read.
func lockFile(f *os.File, how uint32) error {
	at := &windows.Overlapped{OffsetHigh: 1}
	return windows.LockFileEx(windows.Handle(f.Fd()), how|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
}
