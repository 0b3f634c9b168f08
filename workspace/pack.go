package workspace

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ReleaseDir returns the directory of a release in the cache of this machine.
func ReleaseDir(cache, service, id string) string {
	return filepath.Join(cache, "releases", service, id)
}

// Pack writes the files of a release as a tar (POSIX.1-2001, pax): what another node unpacks. Sockets,
// pipes and devices are left out.
func Pack(ctx context.Context, w io.Writer, dir string) error {
	out := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || path == dir {
			return err
		}
		return packOne(out, dir, path, d)
	})
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("packing the release in %s: %w", dir, err)
	}
	return nil
}

func packOne(out *tar.Writer, dir, path string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	target := ""
	switch {
	case d.Type()&fs.ModeSymlink != 0:
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	case !d.IsDir() && !info.Mode().IsRegular():
		return nil
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	name, err := filepath.Rel(dir, path)
	if err != nil {
		return err
	}
	h.Name, h.Uid, h.Gid, h.Uname, h.Gname, h.Format = filepath.ToSlash(name), 0, 0, "", "", tar.FormatPAX
	if err := out.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(out, f)
	return err
}

// Unpack makes the release that r holds as [Pack] wrote it, in the cache of this machine, and returns its
// directory. check is called when all is read and before the release is in its place: an error keeps it
// from being there. One that is there already is left alone, and r is not read.
func Unpack(ctx context.Context, r io.Reader, cache, service, id string, check func() error) (string, error) {
	dir := ReleaseDir(cache, service, id)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	err := os.MkdirAll(filepath.Dir(dir), 0o755)
	var temp string
	if err == nil {
		temp, err = os.MkdirTemp(filepath.Dir(dir), ".new-*")
	}
	if err == nil {
		err = unpackInto(ctx, r, temp)
	}
	if err == nil {
		err = check()
	}
	if err == nil {
		err = errors.Join(os.Chmod(temp, 0o755), os.Rename(temp, dir))
	}
	if err == nil {
		return dir, nil
	}
	_ = removeAll(temp)
	if _, there := os.Stat(dir); there == nil {
		return dir, nil // another start made the same one
	}
	return "", fmt.Errorf("unpacking release %s of %s: %w", id, service, err)
}

// unpackInto writes the files of a tar below dir and nowhere else.
func unpackInto(ctx context.Context, r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	in := tar.NewReader(r)
	for ctx.Err() == nil {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r) // padding, so that all is summed
			return err
		}
		if err != nil {
			return err
		}
		if err := unpackOne(root, in, h); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return ctx.Err()
}

func unpackOne(root *os.Root, in io.Reader, h *tar.Header) error {
	name, mode := filepath.FromSlash(h.Name), h.FileInfo().Mode().Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, mode|0o700) // files come into it
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
	default:
		return fmt.Errorf("a release has files, folders and links, and no %q", h.Typeflag)
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	return errors.Join(err, f.Chmod(mode), f.Close())
}
