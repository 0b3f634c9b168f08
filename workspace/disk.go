package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// diskError says what to do where the disk is full.
func (w *Workspace) diskError(doing string, err error) error {
	if err == nil {
		return nil
	}
	if full(err) {
		return fmt.Errorf("%s: the disk of %s is full; free some space, or move the cache with XDG_CACHE_HOME (%w)", doing, w.config.Cache, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func full(err error) bool {
	gits := strings.Contains(err.Error(), "No space left on device") || strings.Contains(err.Error(), "Out of diskspace")
	return noSpace(err) || gits
}

// removeAll removes a tree although a build made folders of it read-only (as the Go module cache is).
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
