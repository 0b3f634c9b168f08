package workspace

import (
	"errors"
	"syscall"
)

// limitHint says which limit of inotify(7) was reached, and the command that raises it.
func limitHint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "the user's limit of watched folders is reached; raise it: sudo sysctl fs.inotify.max_user_watches=524288"
	case errors.Is(err, syscall.EMFILE):
		return "the user's limit of watchers is reached; raise it: sudo sysctl fs.inotify.max_user_instances=1024"
	}
	return ""
}
