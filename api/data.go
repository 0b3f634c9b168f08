package api

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// DataVersion is the newest layout of the data folder that this binary reads, and the one that it
// writes. It reads every older one as well:
//
//	1  as it was at first
//	2  the broker has a write-ahead log, and saves cursors in groups: neither is known to a Shoal of version 1, which would miss what they hold
const DataVersion = 2

// CheckData refuses a data folder that a newer Shoal wrote. A folder that does not exist, or has
// no VERSION yet, is fine.
func CheckData(data string) error {
	_, err := dataVersion(data)
	return err
}

// dataVersion returns a data folder's version, 0 where it has none, or says why this binary cannot read it.
func dataVersion(data string) (int, error) {
	file := filepath.Join(data, "VERSION")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("the data folder's version cannot be read: %w", err)
	}
	version, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || version < 1 {
		return 0, fmt.Errorf("%s holds %.20q, which is no version: is %s a data folder of Shoal's? Name another with --data", file, b, data)
	}
	if version > DataVersion {
		return 0, fmt.Errorf("the data folder %s has version %d, and this shoal reads up to version %d: use the newer shoal that wrote it, or another folder with --data", data, version, DataVersion)
	}
	return version, nil
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
	return writeVersion(data)
}

// RaiseData gives a data folder of an older version that of this binary, from when on an older Shoal refuses it. It is for the hub, once that
// has the folder to itself, and before it writes anything. When it returns, that is durable.
func RaiseData(data string) error {
	version, err := dataVersion(data)
	if err != nil || version == DataVersion {
		return err
	}
	return writeVersion(data)
}

func writeVersion(data string) error {
	if err := writeFile(filepath.Join(data, "VERSION"), strconv.Itoa(DataVersion)+"\n"); err != nil {
		return err
	}
	return syncFolder(data)
}

// syncFolder makes the names in a folder durable, where the platform has a way to do that.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
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
