// Package sidecar joins a proxy to a process: it starts an application so that its calls reach the
// proxy and the proxy reaches it, and the application does not notice.
//
// It is the first and the last step of the walk of a call: app -> sidecar -> proxy -> sidecar -> app.
// Each application runs under a shim (package shim), a small process that outlives this one. In netns
// mode the shim holds namespaces of the application's own, whose sockets it passes here; in
// explicit mode it holds loopback listeners, which environment variables name. docs/modes.md says
// what holds in which mode.
//
// A shim is trusted no more than the application: who an application is, is read from this
// process's own record, and every descriptor is looked at before it is used.
//
// [Manager] and [Sidecar] are safe for concurrent use.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// Outbound serves the calls that an application makes.
type Outbound interface {
	ServeCapture(ctx context.Context, l *net.TCPListener, src proxy.Source) error
	ServeNamed(ctx context.Context, l net.Listener, src proxy.Source, host string, port uint16) error
	ServeForward(ctx context.Context, l net.Listener, src proxy.Source) error
}

// Inbound is told where the calls to an instance go.
type Inbound interface {
	Attach(instance string, d proxy.Dialer)
	Detach(instance string)
}

// Directory knows the names that a service may use.
type Directory interface {
	Lookup(service, host string) (index uint16, ok bool)
	Snapshot() *fleet.Snapshot
}

// DataPath is what a sidecar needs of a proxy; [proxy.Proxy] is the one there is.
type DataPath interface {
	Outbound
	Inbound
	Directory
}

// Config of a [Manager]. Proxy, Executable, RuntimeDir, NamesFile and LogDir are required.
type Config struct {
	Proxy  DataPath
	Ranges fleet.Ranges // zero: fleet.DefaultRanges
	Node   string       // this node's name

	Executable string // run as `Executable shim`
	RuntimeDir string // R: shims' control sockets and records are in R/shim
	NamesFile  string // addresses of names outside the fleet are kept here
	// Masks are folders and files hidden from applications in netns mode. An application's own
	// folders stay visible where they lie beneath one.
	Masks []string
	// Owned makes shims end with this process. Else they outlive it, for [Manager.Adopt].
	Owned bool

	LogDir   string // logs are LogDir/SERVICE/INSTANCE.log and .log.1
	LogLimit int64  // bytes of log kept per instance; 0: 10 MB
}

const defaultLogLimit = 10 << 20

// withDefaults returns c with zero values replaced, or says what it lacks.
func (c Config) withDefaults() (Config, error) {
	if c.Proxy == nil || c.Executable == "" || c.RuntimeDir == "" || c.NamesFile == "" || c.LogDir == "" {
		return c, errors.New("sidecar: Config needs Proxy, Executable, RuntimeDir, NamesFile and LogDir")
	}
	if c.Ranges == (fleet.Ranges{}) {
		c.Ranges = fleet.DefaultRanges()
	}
	if c.LogLimit <= 0 {
		c.LogLimit = defaultLogLimit
	}
	return c, nil
}

// Manager starts applications behind sidecars. Make one with [New].
type Manager struct {
	cfg    Config
	names  *names
	ports  *ports
	owner  *os.File // read end of a pipe that only this process writes: shims see its end
	search []string // search domains of this host
	keep   *os.File // the write end
	mu     sync.Mutex
	byID   map[string]*Sidecar
}

// New returns a manager without sidecars.
func New(c Config) (*Manager, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(c.RuntimeDir, "shim"), 0o700); err != nil {
		return nil, fmt.Errorf("the runtime folder cannot be used: %w", err)
	}
	names, err := openNames(c.NamesFile, c.Ranges)
	if err != nil {
		return nil, err
	}
	m := &Manager{cfg: c, names: names, ports: newPorts(), search: hostSearch(), byID: map[string]*Sidecar{}}
	if c.Owned {
		m.owner, m.keep, err = os.Pipe()
	}
	return m, err
}

// NameOf returns the name outside the fleet whose virtual address a is.
func (m *Manager) NameOf(a netip.Addr) (string, bool) { return m.names.nameOf(a) }

// Spec is one start: an assignment with its secrets resolved. It is never stored.
type Spec struct {
	Assignment fleet.Assignment
	Env        []string // NAME=value
	Redact     []string // secret values, shown as ••• in logs and in [Sidecar.Environment]
}

// ExecSpec is a command to run beside an application, inside its namespaces.
type ExecSpec struct {
	Command       []string // the program and its arguments; the application's PATH finds it
	Env           []string // NAME=value, besides the application's own
	TTY           bool     // on a terminal of Rows by Columns; Stdout carries its output
	Rows, Columns uint16

	Stdin          io.Reader // nil: empty
	Stdout, Stderr io.Writer // nil: discarded
	Resize         <-chan Size
	Signals        <-chan os.Signal
}

// Size is that of a terminal, in characters.
type Size struct{ Rows, Columns uint16 }

// Check is one step of [Probe].
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"` // the command that mends it
}

// Capability is what this machine can do.
type Capability struct {
	Mode   fleet.Mode
	Reason string // why Mode is not netns
	Remedy string // the one command that mends it
	Checks []Check
}
