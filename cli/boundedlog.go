package cli

import (
	"os"
	"sync"
)

// logLimit is how large hub.log and node.log may grow, in bytes; as much again is kept in `.1`.
const logLimit = 4 << 20

// boundedLog appends to a file and starts it anew when it is full. What the runtime writes to
// standard error at a crash goes to the same file.
type boundedLog struct {
	path  string
	limit int64
	// redirect lets standard error follow to a new file; nil: it does not.
	redirect func(*os.File)

	mu   sync.Mutex
	file *os.File // nil: opened by the next write
	size int64
}

func newBoundedLog(path string, limit int64) *boundedLog {
	return &boundedLog{path: path, limit: limit, redirect: redirectErrors}
}

// Write appends b, which is one record.
func (l *boundedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.makeRoomLocked(len(b)); err != nil {
		return 0, err
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return n, err
}

func (l *boundedLog) makeRoomLocked(n int) error {
	if l.file != nil && l.size+int64(n) > l.limit {
		l.file.Close()
		l.file = nil
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return err
		}
	}
	if l.file != nil {
		return nil
	}
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	l.file, l.size = file, info.Size()
	if l.redirect != nil {
		l.redirect(file)
	}
	return nil
}
