package nats

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// Config configures a [Server]. Broker and Admit are required.
type Config struct {
	Broker *broker.Broker
	// Admit reports whether password is that of user: a service, or [fleet.Operator].
	Admit func(user, password string) bool
	// Observe is told of what is refused here, before the broker hears of it. It must not keep the value. nil: nobody is.
	Observe func(*fleet.Observation)
	Log     *slog.Logger // nil: nothing is logged
	MaxData int          // bytes of one message's data; 0: 10 MB
}

// Server serves connections of NATS clients.
type Server struct {
	config Config
	last   atomic.Uint64 // number of the connection that came last

	mu      sync.Mutex
	conns   map[*conn]bool // nil once the server is closed
	serving sync.WaitGroup
}

// New makes a server.
func New(c Config) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Observe == nil {
		c.Observe = func(*fleet.Observation) {}
	}
	if c.MaxData == 0 {
		c.MaxData = 10 << 20
	}
	return &Server{config: c, conns: make(map[*conn]bool)}
}

// Run serves until ctx ends; then every connection is closed, and clients connect again elsewhere or later. What
// they were given and did not acknowledge goes to others.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for c := range conns {
		c.close()
	}
	s.serving.Wait()
	return ctx.Err()
}

// ServeConn serves one connection to the name `nats` until it ends. A method `Caller() string` of c says whose it
// is; the client must present that caller's credential.
func (s *Server) ServeConn(c net.Conn) {
	caller := ""
	if known, ok := c.(interface{ Caller() string }); ok {
		caller = known.Caller()
	}
	n := newConn(s, c, caller)
	if !s.enter(n) {
		_ = c.Close()
		return
	}
	defer s.leave(n)
	n.serve()
}

func (s *Server) enter(n *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[n] = true
	s.serving.Add(1)
	return true
}

func (s *Server) leave(n *conn) {
	s.mu.Lock()
	delete(s.conns, n)
	s.mu.Unlock()
	s.serving.Done()
}
