package api

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// DataVersion is the newest layout of the data folder that this binary reads, and the one that it
// writes.
const DataVersion = 1

// CheckData refuses a data folder that a newer Shoal wrote. A folder that does not exist, or has
// no VERSION yet, is fine.
func CheckData(data string) error {
	file := filepath.Join(data, "VERSION")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the data folder's version cannot be read: %w", err)
	}
	version, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || version < 1 {
		return fmt.Errorf("%s holds %.20q, which is no version: is %s a data folder of Shoal's? Name another with --data", file, b, data)
	}
	if version > DataVersion {
		return fmt.Errorf("the data folder %s has version %d, and this shoal reads up to version %d: use the newer shoal that wrote it, or another folder with --data", data, version, DataVersion)
	}
	return nil
}

// InitData makes the data folder where there is none, 0700, with the VERSION of this binary, and
// checks one that is there as [CheckData] does.
func InitData(data string) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("the data folder cannot be made: %w", err)
	}
	file := filepath.Join(data, "VERSION")
	if _, err := os.Stat(file); err == nil {
		return CheckData(data)
	}
	return writeFile(file, strconv.Itoa(DataVersion)+"\n")
}

// writeFile replaces a file whole, so that a reader, or a crash, never sees half of it.
func writeFile(path, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(text)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}
