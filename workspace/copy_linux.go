package workspace

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// share makes out a reflink of in (ioctl_ficlone(2)): btrfs, XFS and some others can.
func share(out, in *os.File) bool {
	return unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil
}

// settle waits until a release is on the disk, before its name says that it is whole: after a power cut a
// file that was only renamed may be empty. One call for the file system costs less than one per file.
func settle(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("write to the disk: %w", err)
	}
	return nil
}
