package shim

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	maxLine   = 64 << 10               // bytes after which a line is written in parts
	maxTail   = 32 << 10               // bytes of output kept in memory
	tailLines = 50                     // of them, shown
	idleTime  = 300 * time.Millisecond // after which the beginning of a line is written
	minSecret = 3                      // a shorter value would redact half the log
)

// redacted stands for a secret.
const redacted = "•••"

// output takes what the application writes: redacts it, logs it, and keeps the end of it.
type output struct {
	log     *LogFile
	secrets [][]byte
	pending []byte // read, not yet written

	mu   sync.Mutex // guards tail
	tail []byte
}

func newOutput(l *LogFile, secrets []string) *output {
	o := &output{log: l}
	for _, s := range secrets {
		if len(s) >= minSecret {
			o.secrets = append(o.secrets, []byte(s))
		}
	}
	return o
}

// Redact returns s with every secret replaced.
func Redact(s string, secrets []string) string {
	return string(newOutput(nil, secrets).redact([]byte(s)))
}

// copy returns when nobody holds the other end of the pipe any more. It never stops reading before: a
// pipe that nobody reads blocks or kills who writes.
func (o *output) copy(r *os.File) {
	defer r.Close()
	buf := make([]byte, 32<<10)
	for {
		deadline := time.Time{}
		if len(o.pending) > 0 {
			deadline = time.Now().Add(idleTime)
		}
		_ = r.SetReadDeadline(deadline)
		n, err := r.Read(buf)
		o.pending = append(o.pending, buf[:n]...)
		switch {
		case err == nil:
			o.flush(bytes.LastIndexByte(o.pending, '\n') + 1)
		case errors.Is(err, os.ErrDeadlineExceeded):
			o.flush(len(o.pending))
		default:
			o.emit(len(o.pending))
			return
		}
	}
}

// flush writes the first n bytes, or more of a line that is too long, but no part of a secret whose
// rest is still to come.
func (o *output) flush(n int) {
	if len(o.pending) > maxLine && n == 0 {
		n = len(o.pending)
	}
	o.emit(o.safe(n))
}

// safe returns the largest cut of at most n that lies within no secret.
func (o *output) safe(n int) int {
	for _, s := range o.secrets {
		for i := max(0, n-len(s)+1); i < n; i++ {
			if straddles(o.pending[i:], s) {
				n = i
				break
			}
		}
	}
	return n
}

// straddles reports whether b begins with s, or is a beginning of it.
func straddles(b, s []byte) bool {
	k := min(len(b), len(s))
	return bytes.Equal(b[:k], s[:k])
}

func (o *output) emit(n int) {
	if n == 0 {
		return
	}
	b := o.redact(o.pending[:n])
	_, _ = o.log.Write(b) // the application is not told
	o.mu.Lock()
	o.tail = append(o.tail, b...)
	if excess := len(o.tail) - maxTail; excess > 0 {
		o.tail = append(o.tail[:0], o.tail[excess:]...)
	}
	o.mu.Unlock()
	o.pending = append(o.pending[:0], o.pending[n:]...)
}

func (o *output) redact(b []byte) []byte {
	for _, s := range o.secrets {
		b = bytes.ReplaceAll(b, s, []byte(redacted))
	}
	return b
}

// lines returns the last lines. A nil output has none.
func (o *output) lines() []string {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return LastLines(string(o.tail))
}

// LastLines returns the last lines of a text, as many as a shim keeps.
func LastLines(text string) []string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-tailLines):]
}
