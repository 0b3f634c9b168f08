//go:build unix

package api

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// checkOwner refuses a path that exists and belongs to another user.
func checkOwner(path string) error {
	uid, ok := ownerOf(path)
	if !ok || uid == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("%s belongs to uid %d, not to you (uid %d), so what answers there cannot be trusted: remove it, or set XDG_RUNTIME_DIR to a folder of yours", path, uid, os.Geteuid())
}

// checkNoted accepts the runtime folder that a data folder notes: the user's own, and for root also
// the one of whoever owns the data.
func checkNoted(runtime, data string) error {
	of, known := ownerOf(runtime)
	theirs, ok := ownerOf(data)
	if os.Geteuid() == 0 && known && ok && of == theirs {
		return nil
	}
	return checkOwner(runtime)
}

// ownerOf returns the owner of the path itself, not of what a symbolic link there names.
func ownerOf(path string) (uid int, ok bool) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(stat.Uid), true
}

// temporary is /tmp whatever TMPDIR says: every shell of a user must come to the same folder, and
// macOS's TMPDIR alone takes half of a socket's path.
func temporary() string { return "/tmp" }

func userName() string { return strconv.Itoa(os.Geteuid()) }
