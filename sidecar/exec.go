package sidecar

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/creack/pty"

	"github.com/shoalrun/shoal/sidecar/shim"
)

// drainTime bounds the wait for output of a command that has ended: something that left its process
// group may hold the pipe.
const drainTime = time.Second

// Exec runs a command inside the application's namespaces and returns its exit code, or 128 and the
// number of the signal that ended it. When ctx ends, the command is killed. A read of Stdin that does
// not return outlives Exec.
func (s *Sidecar) Exec(ctx context.Context, e ExecSpec) (exitCode int, err error) {
	st, err := openStreams(&e)
	if err != nil {
		return 0, fmt.Errorf("files for the command: %w", err)
	}
	defer st.close()
	spec := shim.Start{Argv: e.Command, Env: e.Env, TTY: e.TTY}
	id, ended, err := s.link.exec(ctx, spec, st.theirs...)
	if err != nil {
		return 0, err
	}
	defer s.link.execEnded(id)
	st.begin()
	return s.attend(ctx, id, ended, st, &e)
}

// attend passes signals and sizes on until the command ends.
func (s *Sidecar) attend(ctx context.Context, id uint64, ended <-chan shim.Exit, st *streams, e *ExecSpec) (int, error) {
	stop := ctx.Done()
	for {
		select {
		case exit := <-ended:
			st.drain()
			return exit.Code, context.Cause(ctx)
		case <-s.link.closed:
			return 0, fmt.Errorf("%s ended, and the command with it", s.rec.Assignment.Instance)
		case <-stop:
			stop = nil
			s.signalExec(id, os.Kill)
		case sig := <-e.Signals: // never, of a nil channel
			s.signalExec(id, sig)
		case size := <-e.Resize:
			st.resize(size)
		}
	}
}

func (s *Sidecar) signalExec(id uint64, sig os.Signal) {
	number := signalNumber(sig)
	if number == 0 {
		return // a channel was closed, or the signal is not of this system
	}
	ctx, cancel := context.WithTimeout(context.Background(), shimPatience)
	defer cancel()
	_, _ = s.link.call(ctx, shim.Message{Verb: shim.VerbSignal, Target: id, Signal: number}) // it may have ended
}

// streams are the files of a command: pipes, or a terminal.
type streams struct {
	theirs []*os.File
	ours   []*os.File
	in     func() // copies to the command
	outs   []func()
	copied sync.WaitGroup
	tty    *os.File
}

func openStreams(e *ExecSpec) (*streams, error) {
	if e.TTY {
		return openTerminal(e)
	}
	st := &streams{}
	stdin, err := st.pipe(false)
	if err != nil {
		return nil, err
	}
	st.in = func() {
		copyIn(stdin, e.Stdin)
		_ = stdin.Close()
	}
	for _, w := range []io.Writer{e.Stdout, e.Stderr} {
		r, err := st.pipe(true)
		if err != nil {
			st.close()
			return nil, err
		}
		st.outs = append(st.outs, func() { copyOut(w, r) })
	}
	return st, nil
}

// pipe opens a pipe and returns our end of it.
func (st *streams) pipe(weRead bool) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if !weRead {
		r, w = w, r
	}
	st.ours, st.theirs = append(st.ours, r), append(st.theirs, w)
	return r, nil
}

func openTerminal(e *ExecSpec) (*streams, error) {
	ours, theirs, err := pty.Open()
	if err != nil {
		return nil, err
	}
	st := &streams{ours: []*os.File{ours}, theirs: []*os.File{theirs}, tty: ours}
	st.resize(Size{e.Rows, e.Columns})
	st.in = func() { copyIn(ours, e.Stdin) }
	st.outs = []func(){func() { copyOut(e.Stdout, ours) }}
	return st, nil
}

func copyIn(w io.Writer, r io.Reader) {
	if r != nil {
		_, _ = io.Copy(w, r) // the command may end first
	}
}

// copyOut goes on to read after a write error: a command must not hang because its reader is gone.
func copyOut(w io.Writer, r io.Reader) {
	if w != nil {
		_, _ = io.Copy(w, r)
	}
	_, _ = io.Copy(io.Discard, r)
}

// begin starts to copy, once the command has its files.
func (st *streams) begin() {
	closeAll(st.theirs)
	st.theirs = nil
	go st.in()
	for _, out := range st.outs {
		st.copied.Go(out)
	}
}

// drain waits for the last output.
func (st *streams) drain() {
	done := make(chan struct{})
	go func() {
		st.copied.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(drainTime):
	}
}

// close ends all copying: closed files end the reads, and nothing is written after that.
func (st *streams) close() {
	closeAll(st.theirs)
	closeAll(st.ours)
	st.copied.Wait()
}

func (st *streams) resize(size Size) {
	if st.tty != nil && size != (Size{}) {
		_ = pty.Setsize(st.tty, &pty.Winsize{Rows: size.Rows, Cols: size.Columns})
	}
}
