// Package cli is the command line: one file per verb, each named like the API's method and the Go
// function behind it.
//
// It starts the walk of a change, and shows the other two: verbs that touch a running fleet speak
// package api and nothing else, verbs that touch only repositories use manifest and workspace
// here. A foreground `up` is the parent of hub and node, and their owner: its end is theirs.
//
// Everything here runs in one process for one verb. What several goroutines print at once goes
// through one [screen].
package cli

import (
	"context"
	"io"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

// Exit codes, beside those of a command that `exec` or `test` ran.
const (
	exitFailed = 1
	exitUsage  = 2
)

// Config is what cmd hands to the command line. Zero streams are the process's own.
type Config struct {
	Version string
	// Hub and Node run the two processes behind the hidden verbs `hub` and `node`. ctx ends when the
	// process is to stop: at TERM, INT, or the end of its owner.
	Hub  func(ctx context.Context, a HubArgs) error
	Node func(ctx context.Context, a NodeArgs) error
	// Probe says what this machine can do, for `doctor`.
	Probe func(ctx context.Context) []Check

	Args           []string // without the program's name; nil: os.Args[1:]
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// ProcessArgs are what hub and node have in common.
type ProcessArgs struct {
	Version    string // of this binary
	Executable string // absolute path of this binary
	Paths      api.Paths
	Workspace  string // absolute path of shoal.work
	// Owned says that a foreground `up` holds the fleet: nothing may outlive this process. Otherwise
	// instances do, under their shims.
	Owned bool
	// Mode is the sidecar mode that the operator asked for; empty: what the machine can do.
	Mode fleet.Mode
	// Sibling starts the other process again, detached and with the same arguments: node and hub
	// restart each other. nil where Owned.
	Sibling func() error
}

// HubArgs are the arguments of the hub process.
type HubArgs struct {
	ProcessArgs
	Node string // name of the node that runs instances; `local` on a machine of its own
	NATS string // URL of an external NATS server; empty: as shoal.work says
}

// NodeArgs are the arguments of the node process.
type NodeArgs struct {
	ProcessArgs
	Name    string // of the node; `local` on a machine of its own
	Gateway string // HOST:PORT that the operator asked for; empty: shoal.work's, else the default
	Metrics string
	NATS    string
	Pubsub  string
	// Of a node on another machine than the hub's; see node.Config.
	Join, Token, Peers, Address string
}

// Check is one thing that `doctor` looked at.
type Check struct {
	Name   string
	OK     bool
	Detail string // a sentence
	Remedy string // the one command that mends it; empty where OK
}
