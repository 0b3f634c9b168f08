package sidecar

import (
	"context"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

type names struct{}
type ports struct{}

func openNames(file string, r fleet.Ranges) (*names, error) { return &names{}, nil }
func (n *names) nameOf(a netip.Addr) (string, bool)         { return "", false }
func newPorts() *ports                                      { return &ports{} }
func hostSearch() []string                                  { return nil }

// Probe tries the whole sequence of netns mode once and says what this machine can do.
func Probe(ctx context.Context) Capability { return Capability{} }

// Launch starts a shim and its application. Outbound calls are served before the application starts.
func (m *Manager) Launch(ctx context.Context, s Spec) (*Sidecar, error) { return nil, nil }

// Adopt takes over the shims that an earlier process left, and those that ended meanwhile.
func (m *Manager) Adopt(ctx context.Context) ([]*Sidecar, error) { return nil, nil }

// Sidecar is one application and its shim.
type Sidecar struct{}

// Assignment returns what the sidecar was launched with.
func (s *Sidecar) Assignment() fleet.Assignment { return fleet.Assignment{} }

// PID returns the application's process id as this host sees it, or 0.
func (s *Sidecar) PID() int { return 0 }

// Done is closed when no process of the application is left.
func (s *Sidecar) Done() <-chan struct{} { return nil }

// Exit is valid once Done is closed. failure is empty for an exit by itself, else it says what ended
// the process: `killed by SIGSEGV`. The code is then 128 and the signal's number.
func (s *Sidecar) Exit() (code int, failure string) { return 0, "" }

// Dial connects to a port of the application.
func (s *Sidecar) Dial(ctx context.Context, port uint16) (*net.TCPConn, error) { return nil, nil }

// Stop sends TERM to the application's process group, KILL after grace, and returns when it is gone.
func (s *Sidecar) Stop(ctx context.Context, grace time.Duration) error { return nil }

// Exec runs a command inside the application's namespaces.
func (s *Sidecar) Exec(ctx context.Context, e ExecSpec) (exitCode int, err error) { return 0, nil }

// Tail returns the last lines of the application's output, redacted.
func (s *Sidecar) Tail() []string { return nil }

// Environment returns what the application got, redacted.
func (s *Sidecar) Environment() []string { return nil }

// Release stops serving in this process and leaves the shim and its application running.
func (s *Sidecar) Release() {}

var _ = os.Stdin
