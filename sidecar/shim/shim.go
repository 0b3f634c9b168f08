// Package shim is the process between a node and one application: `shoal shim`.
//
// It makes the application's namespaces, opens sockets inside them and passes these to the node,
// runs the application, writes its log, and outlives the node: everything that must not
// end when a node does, and nothing else. It stands beside the walk of a call (the bytes of
// calls never pass it) and carries out the end of the walk of a change. A shim's death is its
// instance's death.
//
// The node's side of the control protocol ([Conn], [Message]) is here too, as is [Run], which runs a
// build under a shim without namespaces. Conn is safe for one reader and any number of writers.
package shim

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// The arguments after `shim`.
const (
	argOwned = "owned" // descriptor 4 is a pipe whose end of file means stop
	argPlain = "plain" // run one command, as [Run] asks
	ArgProbe = "probe" // connect to the address that follows: the application of a probe
)

const (
	setupTimeout = 30 * time.Second // from the start until the application runs
	collectTime  = time.Minute      // for which an exit code waits for a node
)

// Main runs the shim that the command line asks for and returns its exit code. It is called before
// anything else in main, since a shim must start in milliseconds.
func Main() int {
	debug.SetGCPercent(40) // a shim is mostly idle, and there are many
	args := os.Args[min(2, len(os.Args)):]
	if slices.Contains(args, argPlain) {
		return plainMain()
	}
	run := serve
	if slices.Contains(args, ArgProbe) {
		run = probe
	}
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, "shoal shim:", err)
		return 1
	}
	return 0
}

// probe connects to the address that is the last argument.
func probe(args []string) error {
	c, err := net.DialTimeout("tcp", args[len(args)-1], 5*time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

func serve(args []string) error {
	l, err := inheritListener(args)
	if err != nil {
		return fmt.Errorf("it is started by `shoal node`, not by hand: %w", err)
	}
	s := &shim{procs: newProcesses(), conns: map[*Conn]bool{}, over: make(chan struct{})}
	if slices.Contains(args, argOwned) {
		go s.watchOwner(os.NewFile(4, "owner"))
	}
	go s.accept(l)
	abandoned := time.AfterFunc(setupTimeout, func() { s.abandon() })
	defer abandoned.Stop()
	<-s.over
	return nil
}

// shim is the state of this process. over is closed when it may exit.
type shim struct {
	procs *processes
	over  chan struct{}
	once  sync.Once

	mu      sync.Mutex // guards what follows
	conns   map[*Conn]bool
	setup   *Setup
	sockets []socket
	log     *LogFile
	output  *output
	app     *app
	exit    *Exit
	execs   map[execKey]*process
}

// socket is a listening socket that the shim keeps open while the node serves a duplicate.
type socket struct {
	Socket
	file *os.File
}

func (s *shim) end() { s.once.Do(func() { close(s.over) }) }

func (s *shim) accept(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors; some will be freed
			continue
		}
		go s.serveConn(NewConn(c))
	}
}

// watchOwner ends everything when nobody holds the other end of the pipe any more.
func (s *shim) watchOwner(owner *os.File) {
	_, _ = io.Copy(io.Discard, owner) // an error, too, means that nobody writes
	s.mu.Lock()
	a := s.app
	s.mu.Unlock()
	if a != nil {
		s.stop(a, a.grace)
	}
	s.end()
}

// abandon ends a shim whose node never got as far as to start the application.
func (s *shim) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.app == nil {
		s.end()
	}
}
