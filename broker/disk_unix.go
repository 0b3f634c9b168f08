//go:build unix

package broker

import "golang.org/x/sys/unix"

// freeSpace returns the bytes that the file system of dir has left for this user.
func freeSpace(dir string) (bytes int64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
