package shim

import (
	"fmt"
	"os"
	"time"
)

// serveConn answers one node until it goes.
func (s *shim) serveConn(c *Conn) {
	s.mu.Lock()
	s.conns[c] = true
	s.mu.Unlock()
	for {
		m, files, err := c.Receive()
		if err != nil {
			break
		}
		s.handle(c, m, files)
	}
	s.leave(c)
}

// leave forgets a node. What it was executing ends with it; a shim without an application, too.
func (s *shim) leave(c *Conn) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	for key, p := range s.execs {
		if key.conn == c {
			p.killGroup()
		}
	}
	if s.app == nil {
		s.end()
	}
}

// handle carries out a request. Only stop takes long, and has a goroutine.
func (s *shim) handle(c *Conn, m Message, files []*os.File) {
	switch m.Verb {
	case VerbSetup:
		s.answer(c, m, s.setUp(m.Setup))
	case VerbAttach:
		s.answer(c, m, nil)
	case VerbRun:
		s.answer(c, m, s.run(m.Run))
	case VerbDial:
		s.dial(c, m)
	case VerbStop:
		go s.handleStop(c, m)
	case VerbExec:
		s.handleExec(c, m, files)
	case VerbSignal:
		s.reply(c, m, s.signalExec(execKey{c, m.Target}, m.Signal))
	case VerbTail:
		s.mu.Lock()
		o := s.output
		s.mu.Unlock()
		s.send(c, Message{ID: m.ID, Verb: m.Verb, Lines: o.lines()})
	case VerbForget:
		s.forget(c, m)
	default:
		s.reply(c, m, fmt.Errorf("this shim does not know %q; it speaks version %d", m.Verb, Version))
	}
	closeAll(files)
}

// send is for messages whose loss only the broken connection explains: the reader sees that, too.
func (s *shim) send(c *Conn, m Message, files ...*os.File) {
	if err := c.Send(m, files...); err != nil {
		_ = c.Close()
	}
}

func (s *shim) reply(c *Conn, m Message, err error) {
	s.send(c, Message{ID: m.ID, Verb: m.Verb, Error: text(err)})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// answer sends the status and every file; after an error, only that.
func (s *shim) answer(c *Conn, m Message, err error) {
	if err != nil {
		s.reply(c, m, err)
		return
	}
	s.mu.Lock()
	st := &Status{Version: Version, Exit: s.exit}
	var files []*os.File
	for _, k := range s.sockets {
		st.Sockets = append(st.Sockets, k.Socket)
		files = append(files, k.file)
	}
	if s.app != nil {
		st.Running, st.PID = true, s.app.pid
		st.PIDFD = s.app.pidfd != nil
	}
	if st.PIDFD {
		files = append(files, s.app.pidfd)
	}
	s.mu.Unlock()
	if m.Verb == VerbRun { // the node has the sockets
		files, st.Sockets = files[len(st.Sockets):], nil
	}
	s.send(c, Message{ID: m.ID, Verb: m.Verb, Status: st}, files...)
}

func (s *shim) dial(c *Conn, m Message) {
	s.mu.Lock()
	netns := s.setup != nil && s.setup.Netns
	s.mu.Unlock()
	if !netns {
		s.reply(c, m, fmt.Errorf("this application has no network namespace; dial it directly"))
		return
	}
	f, err := openUnconnected(m.Network)
	if err != nil {
		s.reply(c, m, fmt.Errorf("a socket of the namespace: %w", err))
		return
	}
	s.send(c, Message{ID: m.ID, Verb: m.Verb}, f)
	_ = f.Close()
}

func (s *shim) handleStop(c *Conn, m Message) {
	s.mu.Lock()
	a := s.app
	s.mu.Unlock()
	if a != nil {
		s.stop(a, m.Grace)
	}
	s.reply(c, m, nil)
}

// forget ends a shim whose application has ended and whose node knows how.
func (s *shim) forget(c *Conn, m Message) {
	s.mu.Lock()
	over := s.app == nil || s.exit != nil
	s.mu.Unlock()
	if !over {
		s.reply(c, m, fmt.Errorf("the application still runs; stop it first"))
		return
	}
	s.reply(c, m, nil)
	s.end()
}

// finished tells every node how the application ended, and waits for one to know.
func (s *shim) finished(e *Exit) {
	s.mu.Lock()
	s.exit = e
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		s.send(c, Message{Verb: VerbExit, Exit: e})
	}
	s.awaitCollection()
}

// awaitCollection ends the shim when nobody has asked how the application ended, or when this machine
// shuts down. Before, TERM is ignored: the application could send it, too.
func (s *shim) awaitCollection() {
	select { // an old one
	case <-s.procs.term:
	default:
	}
	select {
	case <-s.procs.term:
	case <-time.After(collectTime):
	case <-s.over:
	}
	s.end()
}
