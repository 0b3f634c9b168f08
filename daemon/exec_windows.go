package daemon

import (
	"errors"
	"os"
)

// keepFromChildren does nothing: on Windows no descriptor is handed over.
func keepFromChildren(int) {}

// Exec is not possible on Windows, which cannot replace a running program.
func Exec(string, map[string]*os.File) error {
	return errors.New("a running process cannot be replaced on Windows: use `shoal down`, then `shoal up` with the new binary")
}
