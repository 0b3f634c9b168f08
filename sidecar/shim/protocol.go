package shim

import (
	"net/netip"
	"time"
)

// Version is the protocol's. It is additive: fields and verbs are added, never changed or removed, and
// what is unknown is ignored, since a shim may be older or younger than its node.
const Version = 1

// Verb is what a message is about.
type Verb string

// Requests of a node. Each is answered by a message of the same verb and id.
const (
	VerbSetup  Verb = "setup"  // make namespaces and sockets; Setup -> Status and the sockets
	VerbAttach Verb = "attach" // what is there already -> Status and the sockets
	VerbRun    Verb = "run"    // start the application; Run -> Status and its pidfd
	VerbDial   Verb = "dial"   // an unconnected TCP socket of Network -> that socket
	VerbStop   Verb = "stop"   // TERM, KILL after Grace; answered when the process group is empty
	VerbExec   Verb = "exec"   // run a command on the files given (1: a terminal, or 3); Exec
	VerbSignal Verb = "signal" // send Signal to the command that request Target started
	VerbTail   Verb = "tail"   // the last lines of output -> Lines
	VerbForget Verb = "forget" // the exit is known: the shim may end
)

// Events of a shim, which have no id.
const (
	VerbExit     Verb = "exit"      // the application ended; Exit
	VerbExecExit Verb = "exec-exit" // the command that request Target started ended; Exit
)

// Message is one message in either direction. Files travel beside it.
type Message struct {
	ID    uint64 `json:"id,omitempty"` // of a request and of its answer; 0: an event
	Verb  Verb   `json:"verb"`
	Error string `json:"error,omitempty"` // of an answer

	Setup   *Setup        `json:"setup,omitempty"`
	Run     *Start        `json:"run,omitempty"`
	Exec    *Start        `json:"exec,omitempty"`
	Network string        `json:"network,omitempty"` // tcp4 or tcp6
	Grace   time.Duration `json:"grace,omitempty"`
	Target  uint64        `json:"target,omitempty"` // id of the exec request
	Signal  int           `json:"signal,omitempty"` // as the kernel numbers it

	Status *Status  `json:"status,omitempty"`
	Exit   *Exit    `json:"exit,omitempty"`
	Lines  []string `json:"lines,omitempty"`
}

// Setup is what a shim makes before its application starts.
type Setup struct {
	Version int `json:"version"`

	Netns      bool       `json:"netns"`
	Addr4      netip.Addr `json:"addr4,omitzero"`        // of lo, and the source of what leaves
	Addr6      netip.Addr `json:"addr6,omitzero"`        //
	LocalPorts []uint16   `json:"local_ports,omitempty"` // ports of localhost that are captured
	Masks      []string   `json:"masks,omitempty"`       // folders and files to hide
	Keep       []string   `json:"keep,omitempty"`        // folders that stay visible beneath a mask

	Listeners []string `json:"listeners,omitempty"` // names of loopback listeners to open

	LogDir   string `json:"log_dir"`
	LogName  string `json:"log_name"`
	LogLimit int64  `json:"log_limit"` // bytes in two files
}

// Start is a command and what it gets.
type Start struct {
	Argv   []string      `json:"argv"` // the program is looked up in the PATH of Env
	Dir    string        `json:"dir"`
	Env    []string      `json:"env"`
	Redact []string      `json:"redact,omitempty"` // values replaced in the log
	Grace  time.Duration `json:"grace,omitempty"`  // between TERM and KILL when the owner ends
	TTY    bool          `json:"tty,omitempty"`    // the first file is a terminal, to be controlling
}

// Status is what a shim has. The files beside it are those of Sockets in their order, and then, where
// PIDFD is set, a pidfd of the application.
type Status struct {
	Version int      `json:"version"`
	Running bool     `json:"running,omitempty"` // the application was started; see Exit for its end
	Sockets []Socket `json:"sockets,omitempty"`
	PID     int      `json:"pid,omitempty"` // the application's, in the shim's own PID namespace
	PIDFD   bool     `json:"pidfd,omitempty"`
	Exit    *Exit    `json:"exit,omitempty"`
}

// Socket describes a listening socket that a shim opened.
type Socket struct {
	Name    string `json:"name"`              // capture, dns, or one of Setup.Listeners
	Network string `json:"network"`           // tcp4, tcp6, udp4, udp6
	Address string `json:"address,omitempty"` // in the namespace of the shim
}

// The names of sockets in netns mode.
const (
	SocketCapture = "capture"
	SocketDNS     = "dns"
)

// Exit is how a process ended.
type Exit struct {
	Code   int      `json:"code"`             // 128 and the signal's number where a signal ended it
	Signal string   `json:"signal,omitempty"` // SIGSEGV
	Tail   []string `json:"tail,omitempty"`   // the last lines of output
}
