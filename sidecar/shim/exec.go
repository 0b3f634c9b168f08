package shim

import (
	"errors"
	"os"
	"slices"
)

// execKey names a command that a node is executing: requests are numbered per connection.
type execKey struct {
	conn *Conn
	id   uint64
}

// handleExec starts a command beside the application, with its environment and folder.
func (s *shim) handleExec(c *Conn, m Message, files []*os.File) {
	p, err := s.exec(c, m, files)
	s.reply(c, m, err)
	if err != nil {
		return
	}
	go func() {
		<-p.exited
		p.killGroup() // what it left in the background
		s.mu.Lock()
		delete(s.execs, execKey{c, m.ID})
		s.mu.Unlock()
		s.send(c, Message{Verb: VerbExecExit, Target: m.ID, Exit: &p.exit})
	}()
}

func (s *shim) exec(c *Conn, m Message, files []*os.File) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case m.Exec == nil || len(m.Exec.Argv) == 0:
		return nil, errors.New("no command was given")
	case s.app == nil || s.exit != nil:
		return nil, errGone
	case m.Exec.TTY && len(files) == 1:
		files = []*os.File{files[0], files[0], files[0]}
	case len(files) != 3:
		return nil, errors.New("a command needs three files, or a terminal")
	}
	spec := *m.Exec
	spec.Env = slices.Concat(s.app.spec.Env, spec.Env)
	if spec.Dir == "" {
		spec.Dir = s.app.spec.Dir
	}
	p, err := s.procs.start(spec, s.setup.Netns, files[0], files[1], files[2])
	if err != nil {
		return nil, err
	}
	if s.execs == nil {
		s.execs = map[execKey]*process{}
	}
	s.execs[execKey{c, m.ID}] = p
	return p, nil
}

func (s *shim) signalExec(key execKey, number int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.execs[key]
	if p == nil {
		return errGone
	}
	return p.signalGroup(signalOf(number))
}
