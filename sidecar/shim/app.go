package shim

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

const (
	pollGroup = 10 * time.Millisecond // how often a process group is looked at while it stops
	killTime  = 5 * time.Second       // for KILL to take effect; more only in uninterruptible sleep
)

// app is the application: a shell command in its own process group.
type app struct {
	*process
	spec     Start
	grace    time.Duration
	stopping atomic.Bool
	deadline atomic.Int64  // Unix nanoseconds at which TERM becomes KILL; 0: no stop was asked for
	empty    chan struct{} // closed when the group is empty, after a stop
	gone     chan struct{} // closed when nothing of it is left
}

// setUp makes what Setup asks for.
func (s *shim) setUp(c *Setup) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == nil || s.setup != nil {
		return errors.New("setup comes once, before run")
	}
	s.setup = c
	log, err := OpenLog(c.LogDir, c.LogName, c.LogLimit)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	s.log = log
	if c.Netns {
		s.sockets, err = setUpNamespaces(c)
		return err
	}
	adoptOrphans()
	s.sockets, err = openLoopback(c.Listeners)
	return err
}

// run starts the application.
func (s *shim) run(spec *Start) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if spec == nil || s.setup == nil || s.app != nil {
		return errors.New("run comes once, after setup")
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer write.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := s.procs.start(*spec, s.setup.Netns, null, write, write)
	if err != nil {
		_ = read.Close()
		return err
	}
	s.output = newOutput(s.log, spec.Redact)
	s.app = &app{process: p, spec: *spec, grace: spec.Grace, empty: make(chan struct{}), gone: make(chan struct{})}
	go s.watch(s.app, read)
	return nil
}

// watch copies the output of the application and sees it to its end. Whatever it started ends with it:
// at once, or, while it is being stopped, with the grace period.
func (s *shim) watch(a *app, stdout *os.File) {
	copied := make(chan struct{})
	go func() {
		s.output.copy(stdout)
		close(copied)
	}()
	<-a.exited
	if a.stopping.Load() {
		<-a.empty
	}
	a.killGroup()
	s.killRest()
	select {
	case <-copied:
	case <-time.After(time.Second): // someone holds the pipe who cannot be killed
	}
	close(a.gone)
	e := a.exit
	e.Tail = s.output.lines()
	s.finished(&e)
}

// stop ends the application and returns when it is gone. A second stop can shorten the first one's grace.
func (s *shim) stop(a *app, grace time.Duration) {
	until := time.Now().Add(grace).UnixNano()
	for {
		old := a.deadline.Load()
		if old != 0 && old <= until || a.deadline.CompareAndSwap(old, until) {
			break
		}
	}
	if a.stopping.CompareAndSwap(false, true) {
		a.signalGroup(signalTerm)
		s.waitEmpty(a)
		close(a.empty)
	}
	<-a.gone
}

func (s *shim) waitEmpty(a *app) {
	killed := time.Time{}
	for a.groupExists() {
		now := time.Now()
		if killed.IsZero() && now.UnixNano() >= a.deadline.Load() {
			a.killGroup()
			killed = now
		}
		if !killed.IsZero() && now.Sub(killed) > killTime {
			return
		}
		time.Sleep(pollGroup)
	}
}

// killRest kills what left the process group: everything in the namespace, or every orphan that
// came to this process.
func (s *shim) killRest() {
	s.mu.Lock()
	netns := s.setup.Netns
	s.mu.Unlock()
	if netns {
		killNamespace()
		return
	}
	killChildren()
}
