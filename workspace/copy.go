package workspace

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// copyTree copies a tree as it is: modes, times, links. final is where to will be in the end: an absolute
// link into from (npm and virtual environments make those) is turned to it. Sockets and pipes that a build
// left behind are not copied.
func copyTree(ctx context.Context, from, to, final string) error {
	var folders []folder
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			folders = append(folders, folder{target, info.Mode().Perm(), info.ModTime()})
			return makeFolder(target)
		case info.Mode()&fs.ModeSymlink != 0:
			return copyLink(path, target, from, final)
		case info.Mode().IsRegular():
			return copyFile(path, target, info)
		}
		return nil
	})
	for i := len(folders) - 1; i >= 0 && err == nil; i-- {
		err = folders[i].finish()
	}
	return err
}

// folder is one that was made writable to be filled.
type folder struct {
	path string
	mode fs.FileMode
	time time.Time
}

func makeFolder(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (f folder) finish() error {
	return errors.Join(os.Chmod(f.path, f.mode), os.Chtimes(f.path, f.time, f.time))
}

func copyLink(path, target, from, final string) error {
	to, err := os.Readlink(path)
	if err != nil {
		return err
	}
	if rest, ok := strings.CutPrefix(to, from+string(filepath.Separator)); ok {
		to = filepath.Join(final, rest)
	}
	return os.Symlink(to, target)
}

// copyFile shares the file's blocks where the file system can (a clone is instant and takes no space), and
// copies them otherwise.
func copyFile(path, target string, info fs.FileInfo) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if !share(out, in) {
		_, err = io.Copy(out, in)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return errors.Join(os.Chmod(target, info.Mode().Perm()), os.Chtimes(target, info.ModTime(), info.ModTime()))
}
