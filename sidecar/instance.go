package sidecar

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"github.com/shoalrun/shoal/sidecar/shim"
)

const shimPatience = 5 * time.Second // for what a shim does at once

// Sidecar is one application and its shim.
type Sidecar struct {
	m        *Manager
	rec      *record
	link     *link
	process  *os.Process   // the shim; a child of this process unless it was adopted
	shimPID  int           // the leader of the shim's session; 0: adopted
	shimGone chan struct{} // closed when the shim's process is; never, for an adopted one
	pid      int
	cookie   uint64 // names the network namespace of the application; 0: unknown

	ctx    context.Context // ends with serving
	cancel context.CancelCauseFunc
	serves sync.WaitGroup

	dialed sync.Map // port -> the host that answered last

	mu       sync.Mutex // guards what follows
	released bool
	closers  []func()

	done    chan struct{} // closed after exit and failure are set
	exit    shim.Exit
	failure string
}

func newSidecar(m *Manager, r *record) *Sidecar {
	s := &Sidecar{m: m, rec: r, shimGone: make(chan struct{}), done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

func (s *Sidecar) source() proxy.Source {
	return proxy.Source{Service: s.rec.Assignment.Service, Instance: s.rec.Assignment.Instance}
}

// join begins to watch the application and tells the proxy where its calls go.
func (s *Sidecar) join() {
	s.m.cfg.Proxy.Attach(s.rec.Assignment.Instance, s)
	go s.watch()
}

// abort ends a shim whose application was not started.
func (s *Sidecar) abort() {
	if s.process != nil {
		_ = s.process.Kill()
		s.awaitShim()
	}
	if s.shimPID != 0 && !s.rec.netns() {
		shim.KillSession(s.shimPID) // it may have started, late
	}
	s.stopServing()
	s.m.ports.release(s.rec.Ports)
	s.m.disown(s)
	close(s.done)
}

// watch sees the application to its end.
func (s *Sidecar) watch() {
	select {
	case s.exit = <-s.link.exit:
	case <-s.link.closed:
		s.exit, s.failure = s.shimDied()
	case <-s.ctx.Done():
		s.exit, s.failure = s.servingFailed()
	}
	if s.failure == "" && s.exit.Signal != "" {
		s.failure = "killed by " + s.exit.Signal
	}
	if s.isReleased() { // another process sees to it now
		close(s.done)
		return
	}
	s.m.cfg.Proxy.Detach(s.rec.Assignment.Instance)
	s.endShim()
	s.stopServing()
	s.serves.Wait()
	s.m.ports.release(s.rec.Ports)
	s.m.disown(s)
	close(s.done)
}

// shimDied says how an application ended that nobody saw end.
func (s *Sidecar) shimDied() (shim.Exit, string) {
	select {
	case e := <-s.link.exit: // it came just before
		return e, ""
	default:
		return shim.Exit{Code: 137}, "killed, since its shim (`shoal shim`) died"
	}
}

// servingFailed ends an application whose calls cannot be served any more.
func (s *Sidecar) servingFailed() (shim.Exit, string) {
	if s.isReleased() {
		select {
		case e := <-s.link.exit:
			return e, ""
		case <-s.link.closed:
			return s.shimDied()
		}
	}
	return shim.Exit{Code: 137}, "killed, since its calls could not be served: " + context.Cause(s.ctx).Error()
}

// endShim lets a shim end whose application has, and makes it where it does not. What a dead shim left
// outside a PID namespace ends, too.
func (s *Sidecar) endShim() {
	ctx, cancel := context.WithTimeout(context.Background(), shimPatience)
	defer cancel()
	_, err := s.link.call(ctx, shim.Message{Verb: shim.VerbForget})
	if err != nil && s.process != nil {
		_ = s.process.Kill() // done already, or about to be, or it should be
	}
	s.awaitShim()
	_ = s.link.conn.Close()
	if err == nil || s.rec.netns() {
		return // it has left nothing
	}
	if s.shimPID != 0 {
		shim.KillSession(s.shimPID)
	}
	shim.KillMarked(stateEnv+s.rec.Assignment.State, instanceEnv+s.rec.Assignment.Instance)
}

// awaitShim returns when the shim is gone; one that does not go is killed.
func (s *Sidecar) awaitShim() {
	gone := s.shimGone
	if s.shimPID == 0 {
		gone = s.link.closed
	}
	select {
	case <-gone:
	case <-time.After(shimPatience):
		if s.process != nil {
			_ = s.process.Kill()
		}
	}
}

func (s *Sidecar) isReleased() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.released
}

// onStop registers what ends with serving.
func (s *Sidecar) onStop(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closers = append(s.closers, f)
}

func (s *Sidecar) stopServing() {
	s.cancel(errors.New("serving was stopped"))
	s.mu.Lock()
	closers := s.closers
	s.closers = nil
	s.mu.Unlock()
	for _, f := range closers {
		f()
	}
}

// Assignment returns what the sidecar was launched with.
func (s *Sidecar) Assignment() fleet.Assignment { return s.rec.Assignment }

// PID returns the application's process id as this host sees it, or 0 where that is unknown. It is for
// show: an application may lie.
func (s *Sidecar) PID() int { return s.pid }

// Port returns where the application is to listen in place of a port that it declares.
func (s *Sidecar) Port(declared uint16) uint16 { return s.portOf(declared) }

// Done is closed when no process of the application is left.
func (s *Sidecar) Done() <-chan struct{} { return s.done }

// Exit is valid once Done is closed. failure is empty for an exit by itself, else it says what ended
// the process: `killed by SIGSEGV`. The code is then 128 and the signal's number.
func (s *Sidecar) Exit() (code int, failure string) {
	<-s.done
	return s.exit.Code, s.failure
}

// Environment returns what the application got, as NAME=value, redacted.
func (s *Sidecar) Environment() []string { return slices.Clone(s.rec.Env) }

// Stop sends TERM to the application's process group, KILL after grace, and returns when nothing of it
// is left. When ctx ends, it returns the reason, and the stop goes on.
func (s *Sidecar) Stop(ctx context.Context, grace time.Duration) error {
	patience, cancel := context.WithTimeoutCause(ctx, grace+2*shimPatience, errShimGone)
	defer cancel()
	_, err := s.link.call(patience, shim.Message{Verb: shim.VerbStop, Grace: grace})
	if err != nil && ctx.Err() == nil && s.process != nil {
		_ = s.process.Kill() // it is dead, or does not do its work
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Tail returns the last lines of the application's output, redacted.
func (s *Sidecar) Tail() []string {
	select {
	case <-s.done:
		return s.lastLines(s.exit.Tail)
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	a, err := s.link.call(ctx, shim.Message{Verb: shim.VerbTail})
	if err != nil {
		return s.lastLines(nil)
	}
	return a.Lines
}

// lastLines reads the log where a shim could not say what it wrote.
func (s *Sidecar) lastLines(lines []string) []string {
	if lines != nil {
		return lines
	}
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		return nil
	}
	return shim.LastLines(strings.ToValidUTF8(string(b[max(0, len(b)-tailBytes):]), "?"))
}

const tailBytes = 16 << 10

// Release stops serving calls of the application in this process and leaves it running, for the
// process that has adopted it, or will. Connections that are open, and Dial, go on.
func (s *Sidecar) Release() {
	s.mu.Lock()
	s.released = true
	s.mu.Unlock()
	s.stopServing()
}
