//go:build unix

package daemon

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// keepFromChildren marks a descriptor that came by exec, which Go does not do by itself: a lock lasts as
// long as any process has it.
func keepFromChildren(fd int) { unix.CloseOnExec(fd) }

// Exec replaces this process by executable with the same arguments, in place: it keeps its id, its
// owner, and files, which the new program finds with [NewSockets]. It returns only an error.
func Exec(executable string, files map[string]*os.File) error {
	var entries []string
	for name, f := range files {
		fd, err := unix.Dup(int(f.Fd())) // a duplicate is not closed by exec
		if err != nil {
			return fmt.Errorf("the %s socket: %w", name, err)
		}
		entries = append(entries, fmt.Sprintf("%s=%d", name, fd))
	}
	env := environment(os.Environ(), socketsEnv, strings.Join(entries, ","))
	args := append([]string{executable}, os.Args[1:]...)
	return fmt.Errorf("%s cannot be started: %w", executable, unix.Exec(executable, args, env))
}
