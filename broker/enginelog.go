package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
)

// engineLog carries the server's log to ours. It is also how a write error is noticed: JetStream
// does not answer a publish that it could not write, it only logs (stream.go, processJetStreamMsg: "We don't want to respond").
type engineLog struct {
	log  *slog.Logger
	fail context.CancelCauseFunc
	last atomic.Pointer[string] // of Fatalf
}

// writeFailures are parts of what the server logs when a write or a sync failed.
var writeFailures = []string{"JetStream failed to store", "ritical write error", "JetStream out of", "Filesystem permission denied"}

func (l *engineLog) Noticef(string, ...any) {}
func (l *engineLog) Debugf(string, ...any)  {}
func (l *engineLog) Tracef(string, ...any)  {}

func (l *engineLog) Warnf(format string, v ...any) {
	if strings.HasPrefix(format, "Maximum payloads over") {
		return // known, and meant: one commit group is one message
	}
	l.log.Warn("jetstream", "text", fmt.Sprintf(format, v...))
	l.judge(fmt.Sprintf(format, v...))
}

func (l *engineLog) Errorf(format string, v ...any) {
	l.log.Error("jetstream", "text", fmt.Sprintf(format, v...))
	l.judge(fmt.Sprintf(format, v...))
}

// Fatalf does not end the process, as the server's own logger would: what could not start says so.
func (l *engineLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Error("jetstream", "text", text)
	l.last.Store(&text)
}

func (l *engineLog) fatal() error {
	if text := l.last.Load(); text != nil {
		return errors.New(*text)
	}
	return nil
}

func (l *engineLog) judge(text string) {
	for _, w := range writeFailures {
		if strings.Contains(text, w) {
			l.fail(&writeError{text})
			return
		}
	}
}

// writeError is a failed write or sync of the embedded server.
type writeError struct{ text string }

func (e *writeError) Error() string { return e.text }

// full reports whether the disk, and not its health, is the reason.
func (e *writeError) full() bool {
	return strings.Contains(e.text, "no space left") || strings.Contains(e.text, "disk quota") || strings.Contains(e.text, "out of")
}
