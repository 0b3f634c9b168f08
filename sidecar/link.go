package sidecar

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/shoalrun/shoal/sidecar/shim"
)

// link is this process's end of a shim's control connection.
type link struct {
	conn   *shim.Conn
	exit   chan shim.Exit // the application's, once
	closed chan struct{}  // closed when the connection is

	mu      sync.Mutex // guards what follows
	next    uint64
	waiting map[uint64]chan answer
	execs   map[uint64]chan shim.Exit
}

type answer struct {
	shim.Message
	files []*os.File
}

var errShimGone = errors.New("its shim does not answer any more")

// newLink reads from c until it fails.
func newLink(c *shim.Conn) *link {
	l := &link{
		conn: c, exit: make(chan shim.Exit, 1), closed: make(chan struct{}),
		waiting: map[uint64]chan answer{}, execs: map[uint64]chan shim.Exit{},
	}
	go l.read()
	return l
}

func (l *link) read() {
	defer close(l.closed)
	for {
		m, files, err := l.conn.Receive()
		if err != nil {
			_ = l.conn.Close()
			return
		}
		l.take(answer{m, files})
	}
}

// take hands a message to whoever waits for it. What nobody waits for is dropped: it is of a request
// that was given up, of a newer shim, or made up.
func (l *link) take(a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case a.ID != 0 && l.waiting[a.ID] != nil:
		l.waiting[a.ID] <- a // has room for one
		delete(l.waiting, a.ID)
		return
	case a.Verb == shim.VerbExit && a.Exit != nil:
		offer(l.exit, *a.Exit)
	case a.Verb == shim.VerbExecExit && a.Exit != nil && l.execs[a.Target] != nil:
		offer(l.execs[a.Target], *a.Exit)
	}
	closeAll(a.files)
}

func offer(c chan shim.Exit, e shim.Exit) {
	select {
	case c <- e:
	default: // it ends only once
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// call sends a request and returns its answer, with at most as many files as wanted.
func (l *link) call(ctx context.Context, m shim.Message, files ...*os.File) (answer, error) {
	l.mu.Lock()
	id, got := l.registerLocked()
	l.mu.Unlock()
	return l.exchange(ctx, id, got, m, files)
}

func (l *link) registerLocked() (uint64, chan answer) {
	l.next++
	got := make(chan answer, 1)
	l.waiting[l.next] = got
	return l.next, got
}

func (l *link) exchange(ctx context.Context, id uint64, got chan answer, m shim.Message, files []*os.File) (answer, error) {
	m.ID = id
	if err := l.conn.Send(m, files...); err != nil {
		l.forget(id, got)
		return answer{}, fmt.Errorf("%w: %w", errShimGone, err)
	}
	select {
	case a := <-got:
		return a, a.err()
	case <-l.closed:
		return l.late(got)
	case <-ctx.Done():
		l.forget(id, got)
		return answer{}, context.Cause(ctx)
	}
}

// late returns an answer that came just before the connection closed.
func (l *link) late(got chan answer) (answer, error) {
	select {
	case a := <-got:
		return a, a.err()
	default:
		return answer{}, errShimGone
	}
}

func (a answer) err() error {
	if a.Error == "" {
		return nil
	}
	closeAll(a.files)
	return errors.New(a.Error)
}

// forget gives a request up, and closes the files of an answer that has come meanwhile.
func (l *link) forget(id uint64, got <-chan answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, id)
	select {
	case a := <-got:
		closeAll(a.files)
	default:
	}
}

// exec starts a command and returns where its exit will come.
func (l *link) exec(ctx context.Context, spec shim.Start, files ...*os.File) (uint64, <-chan shim.Exit, error) {
	l.mu.Lock()
	id, got := l.registerLocked()
	ended := make(chan shim.Exit, 1)
	l.execs[id] = ended
	l.mu.Unlock()
	_, err := l.exchange(ctx, id, got, shim.Message{Verb: shim.VerbExec, Exec: &spec}, files)
	if err != nil {
		l.execEnded(id)
	}
	return id, ended, err
}

func (l *link) execEnded(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.execs, id)
}
