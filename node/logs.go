package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/api"
)

const (
	logPoll  = 100 * time.Millisecond // between two looks at files that are followed
	logChunk = 64 << 10               // bytes read at a time
)

// logs sends what instances wrote. Shims write the files; this only reads them, so that nothing is
// lost while no node runs.
func (n *node) logs(ctx context.Context, r api.LogsRequest, send func(api.LogLine) error) error {
	tails := make(map[string]*logTail)
	files := func() []string { return logFiles(n.Paths.Logs, r.Services) }
	if r.Access {
		files = func() []string { return accessFiles(n.Paths.Logs) }
		send = onlyOf(r.Services, send)
	}
	first := true
	for {
		for _, path := range files() {
			var err error
			t := tails[path]
			if t == nil {
				t = &logTail{path: path, send: send}
				tails[path] = t
				if first {
					err = t.begin(r.Tail)
				}
			}
			if err = errors.Join(err, t.read()); err != nil {
				return err
			}
		}
		first = false
		if !r.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(logPoll):
		}
	}
}

// logFiles returns the log in dir of each instance of the services (none: all), the oldest first.
func logFiles(dir string, services []string) []string {
	if len(services) == 0 {
		services = []string{"*"}
	}
	var all []string
	for _, service := range services {
		found, _ := filepath.Glob(filepath.Join(dir, service, "*.log")) // a name is no bad pattern
		all = append(all, found...)
	}
	written := make(map[string]time.Time, len(all))
	for _, path := range all {
		if info, err := os.Stat(path); err == nil {
			written[path] = info.ModTime()
		}
	}
	slices.SortStableFunc(all, func(a, b string) int { return written[a].Compare(written[b]) })
	return all
}

// instanceOf returns whose log path is.
func instanceOf(path string) string { return strings.TrimSuffix(filepath.Base(path), ".log") }

// logTail reads one instance's log from some point on, through its rotations.
type logTail struct {
	path string
	send func(api.LogLine) error

	file    *os.File
	offset  int64
	partial []byte // a line whose end is still to come
}

// begin skips to the last lines, and sends those of the rotated file where they reach back to it; 0
// stands for all that is kept.
func (t *logTail) begin(lines int) error {
	old, err := os.ReadFile(t.path + ".1")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	current, err := os.ReadFile(t.path)
	if err != nil {
		return err
	}
	text := append(old, current...)
	if lines > 0 {
		text = lastLines(text, lines)
	}
	t.offset = int64(len(current))
	return t.take(text)
}

func lastLines(text []byte, lines int) []byte {
	at := len(bytes.TrimSuffix(text, []byte("\n")))
	for range lines {
		at = bytes.LastIndexByte(text[:at], '\n')
		if at < 0 {
			return text
		}
	}
	return text[at+1:]
}

// read sends what was written since the last time.
func (t *logTail) read() error {
	if t.file == nil {
		f, err := os.Open(t.path)
		if err != nil {
			return nil // being rotated: it is there next time
		}
		t.file = f
	}
	if err := t.readOpen(); err != nil {
		return err
	}
	if !t.rotated() {
		return nil
	}
	err := t.readOpen() // what came between
	_ = t.file.Close()
	t.file, t.offset = nil, 0
	return err
}

func (t *logTail) readOpen() error {
	chunk := make([]byte, logChunk)
	for {
		n, err := t.file.ReadAt(chunk, t.offset)
		t.offset += int64(n)
		if failed := t.take(chunk[:n]); failed != nil {
			return failed
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// rotated reports whether the path names another file by now.
func (t *logTail) rotated() bool {
	mine, err := t.file.Stat()
	if err != nil {
		return true
	}
	now, err := os.Stat(t.path)
	return err == nil && !os.SameFile(mine, now)
}

func (t *logTail) take(text []byte) error {
	t.partial = append(t.partial, text...)
	for {
		line, rest, whole := bytes.Cut(t.partial, []byte("\n"))
		if !whole {
			return nil
		}
		if err := t.send(t.line(string(line))); err != nil {
			return err
		}
		t.partial = rest
	}
}

func (t *logTail) line(text string) api.LogLine {
	return api.LogLine{
		Service:  filepath.Base(filepath.Dir(t.path)),
		Instance: instanceOf(t.path),
		Text:     text,
	}
}
