package manifest

import (
	"net"
	"strconv"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Workspace is a shoal.work (or a fleet file, which has the same format) after validation.
type Workspace struct {
	File  string // as errors show it
	Fleet string // name and trust domain

	Repos     []Repo
	Externals []External          // sorted by service
	Bind      []Binding           // sorted by service and need
	Instances map[string]int      // service to count; overrides the manifest's
	Nodes     map[string][]string // service to the nodes that it may run on; overrides the manifest's
	Secrets   []SecretSource      // asked in this order

	fleet.Observing
	Limits       fleet.Limits
	Certificates time.Duration // their life; 0: the authority's default
	Ranges       fleet.Ranges
	Listeners    Listeners
	Engine       fleet.Engine // of the broker; files as written, relative to the folder of the file

	at map[string]position
}

// Repo is one entry of `repos`: a path or a URL, never both.
type Repo struct {
	Path     string // as written; relative to the folder of the file
	URL      string // with any credentials; see workspace for how they are kept out of sight
	Pin      string // tag, branch or commit; empty: the remote's default branch
	Manifest string // path of a manifest outside the repository, relative to the folder of the file

	Line, Column int
}

// String returns the entry as the short form writes it: PATH, URL or URL@PIN.
func (r Repo) String() string {
	if r.Path != "" {
		return r.Path
	}
	if r.Pin == "" {
		return r.URL
	}
	return r.URL + "@" + r.Pin
}

// External is one entry of `externals`: a service of the fleet that runs outside Shoal.
type External struct {
	Service  string
	Host     string
	Port     uint16
	Protocol fleet.Protocol // http unless the entry says otherwise

	Line, Column int
}

// Address returns HOST:PORT.
func (e External) Address() string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

// Binding is one entry of `bind`: where this environment has a need of a service.
type Binding struct {
	Service, Need string
	Address       string // HOST:PORT

	Line, Column int
}

// SecretSource is one entry of `secrets`: an env file or a command, never both.
type SecretSource struct {
	EnvFile string   // as written; relative to the folder of the file
	Exec    []string // words; the reference is appended as the last argument
}

// String names the source as errors do.
func (s SecretSource) String() string {
	if s.EnvFile != "" {
		return s.EnvFile
	}
	return "`" + joinWords(s.Exec) + "`"
}

// Listeners are the addresses on the host that Shoal itself listens on.
type Listeners struct {
	Gateway, Metrics, Pubsub, NATS, Peers Listener
}

// Listener is an address on the host. A default whose port is taken moves to the next free port; one
// that was written down (Line is not 0) does not.
type Listener struct {
	Host string // an IP address or `localhost`
	Port uint16
	Line int // of the key in the file; 0: the default
}

// Address returns HOST:PORT.
func (l Listener) Address() string { return net.JoinHostPort(l.Host, strconv.Itoa(int(l.Port))) }

// DefaultListeners returns the listeners in force where shoal.work names none.
func DefaultListeners() Listeners {
	at := func(port uint16) Listener { return Listener{Host: "127.0.0.1", Port: port} }
	return Listeners{Gateway: at(8000), Metrics: at(9464), Pubsub: at(8085), NATS: at(4222), Peers: at(7443)}
}

// ParseWorkspace reads a shoal.work or a fleet file. An error is [Errors] and holds every mistake of
// the file, in the order of the file.
func ParseWorkspace(file string, data []byte) (*Workspace, error) {
	w := &Workspace{File: file, Observing: fleet.Observing{Traces: fleet.Traces{Sample: 1}}, Ranges: fleet.DefaultRanges(), Listeners: DefaultListeners()}
	p := &parse{file: file, workspace: w}
	p.read(data, workspaceKeys())
	p.checkWorkspace()
	if err := p.errors.sorted(); err != nil {
		return nil, err
	}
	w.at = p.at
	return w, nil
}
