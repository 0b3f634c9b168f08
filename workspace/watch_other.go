//go:build !linux

package workspace

import (
	"errors"
	"syscall"
)

// limitHint says what to do where the process may not open more: kqueue opens every folder and file.
func limitHint(err error) string {
	if errors.Is(err, syscall.EMFILE) {
		return "too many files are open; raise the limit: ulimit -n 65536"
	}
	return ""
}
