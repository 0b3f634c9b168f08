//go:build unix

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// redirectErrors lets what the Go runtime writes at a panic follow the log to its new file. Where
// that fails it goes on into the old one, which is kept.
func redirectErrors(log *os.File) {
	for _, fd := range []int{1, 2} {
		_ = unix.Dup2(int(log.Fd()), fd)
	}
}
