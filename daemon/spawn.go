package daemon

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Spawn describes a process to start in a session of its own.
type Spawn struct {
	Executable string
	Args       []string            // without the program's name
	Log        string              // file to which its output is appended; empty: discarded
	Owner      *os.File            // the pipe's reading end; nil: it has no owner
	Files      map[string]*os.File // handed over by name
}

// Start starts the process and returns it. Its descriptors stay the caller's, to be closed.
func (s Spawn) Start() (*exec.Cmd, error) {
	cmd := exec.Command(s.Executable, s.Args...)
	cmd.Env = environment(os.Environ(), socketsEnv, s.hand(cmd))
	cmd.Env = environment(cmd.Env, ownerEnv, s.own(cmd))
	cmd.SysProcAttr = ownSession()
	if s.Log != "" {
		log, err := os.OpenFile(s.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s %s: %w", s.Executable, strings.Join(s.Args, " "), err)
	}
	return cmd, nil
}

// firstExtra is the descriptor of the first of exec.Cmd.ExtraFiles.
const firstExtra = 3

func (s Spawn) hand(cmd *exec.Cmd) string {
	var entries []string
	for _, name := range slices.Sorted(maps.Keys(s.Files)) {
		entries = append(entries, fmt.Sprintf("%s=%d", name, firstExtra+len(cmd.ExtraFiles)))
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.Files[name])
	}
	return strings.Join(entries, ",")
}

// own makes the owner's pipe the standard input, which every platform can hand over.
func (s Spawn) own(cmd *exec.Cmd) string {
	if s.Owner == nil {
		return ""
	}
	cmd.Stdin = s.Owner
	return "0"
}
