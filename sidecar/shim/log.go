package shim

import (
	"cmp"
	"fmt"
	"os"
	"sync"
)

// LogFile is a log of at most limit bytes in two files, NAME and NAME.1. The folder is held open: a
// mask may cover it. Hub and node write theirs with it, too. It is safe for concurrent use.
type LogFile struct {
	root  *os.Root
	name  string
	limit int64 // of both files together

	mu   sync.Mutex // guards what follows
	f    *os.File
	size int64
}

// OpenLog opens the log NAME in dir, and makes the folder where it is missing. limit is of both files together.
func OpenLog(dir, name string, limit int64) (*LogFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	l := &LogFile{root: root, name: name, limit: max(limit, 2)}
	if err := l.openLocked(); err != nil {
		return nil, fmt.Errorf("%s in %s: %w", name, dir, err)
	}
	return l, nil
}

func (l *LogFile) openLocked() error {
	f, err := l.root.OpenFile(l.name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return err
	}
	l.f, l.size = f, fi.Size()
	return nil
}

// Write appends b, which has whole lines, and is cut where it exceeds a file by itself. What cannot be written, on
// a full disk say, is lost.
func (l *LogFile) Write(b []byte) (total int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	half := l.limit / 2
	for len(b) > 0 {
		if l.size > 0 && l.size+int64(len(b)) > half {
			l.rotateLocked()
		}
		if l.f == nil {
			if err := l.openLocked(); err != nil {
				return total, err
			}
		}
		n := min(int64(len(b)), half)
		written, failed := l.f.Write(b[:n])
		l.size += int64(written)
		total += written
		err = cmp.Or(err, failed)
		b = b[n:]
	}
	return total, err
}

func (l *LogFile) rotateLocked() {
	if l.f == nil {
		return
	}
	_ = l.f.Close()
	l.f = nil
	if l.root.Rename(l.name, l.name+".1") != nil {
		_ = l.root.Remove(l.name) // better no old lines than too many
	}
}
