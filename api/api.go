// Package api is the operator API: what the CLI and the dashboard speak to a running fleet, and
// the only thing that they speak.
//
// It starts the walk of a change (CLI -> api -> deploy) and looks at the other two from outside.
// Hub and node both serve the schema of api/proto on Unix sockets in the fleet's runtime folder
// ([Locate]): each fills the fields of a [Server] that it can answer. [Client] knows which of the two
// answers a verb, and asks the node where the hub is gone. Values of package fleet travel as their
// JSON, which docs/operator-api.md documents.
//
// A socket answers the same uid and root only. Server and Client are safe for concurrent use.
package api

import (
	"io"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Process names one of the two processes of a fleet.
type Process string

// The processes.
const (
	Hub  Process = "hub"
	Node Process = "node"
)

// Info is what a process says of itself.
type Info struct {
	Process    Process
	Version    string // of its binary
	PID        int
	Fleet      string
	Workspace  string // absolute path of shoal.work
	Data       string // absolute path of the data folder
	Started    time.Time
	Executable string // absolute path of its binary
	Owned      bool   // a foreground `up` holds the fleet and ends it
}

// UpRequest asks the hub to run services as a workspace declares them.
type UpRequest struct {
	Workspace string   // absolute path of shoal.work
	Services  []string // empty: all; else these and everything that they call
	Learn     bool     // let undeclared calls through, recorded
	Update    bool     // move pins to the newest commit of their ref
	// Nodes are where Services are to run. What else is up stays up. Empty: as manifests say.
	Nodes []string
	// Place is what earlier requests said of that, by service; the hub's to write.
	Place map[string][]string
}

// TokenRequest asks for a token by which a node joins the fleet, once.
type TokenRequest struct {
	Node   string
	Valid  time.Duration // 0: an hour
	Rejoin bool          // in the place of a node of that name
}

// Token is what a machine needs to join.
type Token struct {
	Token   string
	Address string // HOST:PORT where the hub awaits it
}

// Publication is one event that the operator publishes.
type Publication struct {
	Topic       string
	ContentType string // empty: application/octet-stream
	Data        []byte
	Attributes  map[string]string // CloudEvents context attributes; id, source and type have defaults
	Key         string            // the ordering key
	Delay       time.Duration     // until it is delivered first
}

// Var is one variable of `shoal env`.
type Var struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Secret bool   `json:"secret,omitempty"` // Value is redacted
}

// LogsRequest selects log lines.
type LogsRequest struct {
	Services []string // empty: all
	Follow   bool     // go on with lines as they are written
	Tail     int      // last lines per instance; 0: all kept
	Access   bool     // access records instead: the text of each line is a fleet.Observation in JSON
}

// LogLine is one line that an instance wrote.
type LogLine struct {
	Service  string    `json:"service"`
	Instance string    `json:"instance"`
	Stream   string    `json:"stream"` // stdout or stderr
	Time     time.Time `json:"time"`
	Text     string    `json:"text"`
}

// TapRequest selects observations.
type TapRequest = fleet.Filter

// Size is that of a terminal, in characters.
type Size struct{ Rows, Columns uint16 }

// ExecRequest is a command to run inside a service's namespace. It has the same shape on both
// ends: the client's reader is read there and arrives as the server's reader.
type ExecRequest struct {
	Service string
	Command []string
	Env     []string // NAME=value, beside what the service itself has
	TTY     bool
	Size    Size // of the terminal, with TTY

	Stdin          io.Reader // nil: empty
	Stdout, Stderr io.Writer // with TTY everything comes on Stdout
	Resize         <-chan Size
	Signals        <-chan string // INT, TERM, …
}
