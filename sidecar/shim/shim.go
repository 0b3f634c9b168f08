// Package shim is the process between a node and one application.
package shim

import "context"

// Main runs the shim that the command line `shoal shim` asks for and returns its exit code. It is
// called before anything else in main, since a shim must start in milliseconds.
func Main() int { return 1 }

// Command is a shell command that must not outlive its owner.
type Command struct {
	Executable string // run as `Executable shim plain`; empty: this binary
	Dir        string
	Shell      string   // run as `/bin/sh -c`
	Env        []string // NAME=value; the whole environment
	// Output is called with each line of standard output and error, from one goroutine. nil: discarded.
	Output func(line string)
}

// Run runs a command under a shim of its own and returns its exit code. The command and everything
// it started end with it, with ctx (TERM, and KILL after 5 s), and with this process.
func Run(ctx context.Context, c Command) (code int, err error) { return 0, nil }
