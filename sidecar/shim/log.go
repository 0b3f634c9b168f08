package shim

import (
	"fmt"
	"os"
	"sync"
)

// logFile is a log of at most limit bytes in two files, NAME and NAME.1. The folder is held open: a
// mask may cover it. A write that fails, on a full disk say, is lost, and the application is not told.
type logFile struct {
	root  *os.Root
	name  string
	limit int64 // of both files together

	mu   sync.Mutex // guards what follows
	f    *os.File
	size int64
}

func openLog(dir, name string, limit int64) (*logFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	l := &logFile{root: root, name: name, limit: max(limit, 2)}
	if err := l.openLocked(); err != nil {
		return nil, fmt.Errorf("%s in %s: %w", name, dir, err)
	}
	return l, nil
}

func (l *logFile) openLocked() error {
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

// write appends b, which has whole lines, and is cut where it exceeds a file by itself.
func (l *logFile) write(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	half := l.limit / 2
	for len(b) > 0 {
		if l.size > 0 && l.size+int64(len(b)) > half {
			l.rotateLocked()
		}
		if l.f == nil && l.openLocked() != nil {
			return
		}
		n := min(int64(len(b)), half)
		written, _ := l.f.Write(b[:n])
		l.size += int64(written)
		b = b[n:]
	}
}

func (l *logFile) rotateLocked() {
	if l.f == nil {
		return
	}
	_ = l.f.Close()
	l.f = nil
	if l.root.Rename(l.name, l.name+".1") != nil {
		_ = l.root.Remove(l.name) // better no old lines than too many
	}
}
