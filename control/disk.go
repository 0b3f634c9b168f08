package control

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/shoalrun/shoal/fleet"
)

const (
	indexFile   = "index.json"
	serviceDir  = "services"
	parallelism = 16 // files synced at once: a journaling file system commits them together
)

// index is the snapshot's table of contents on a node's disk. A service's file has its version in
// its name, so that until a new index is in place the old one still finds everything it names.
type index struct {
	Fleet    string               `json:"fleet"`
	Version  uint64               `json:"version"`
	Services map[string]indexLine `json:"services"`
}

type indexLine struct {
	Version uint64 `json:"version"`
	SHA256  string `json:"sha256"` // of the file, hexadecimal
}

// MissingError says which services of a saved snapshot could not be read. They are to be fetched again.
type MissingError struct {
	Services []string // sorted; empty where the index itself cannot be read
	Err      error
}

// Error names what is missing.
func (e *MissingError) Error() string {
	what := "the index"
	if len(e.Services) > 0 {
		what = strings.Join(e.Services, ", ")
	}
	return fmt.Sprintf("the saved snapshot lacks %s, to be fetched again: %v", what, e.Err)
}

// Unwrap returns why the first of them could not be read.
func (e *MissingError) Unwrap() error { return e.Err }

// SaveSnapshot writes s to dir: the services in changed, those that dir lacks in their version, and
// the index, each by temporary file, fsync and rename; then it deletes what the index no longer names. A
// crash at any moment leaves the old snapshot or the new one. One caller per dir at a time.
func SaveSnapshot(dir string, s *fleet.Snapshot, changed ...*fleet.Service) error {
	if err := os.MkdirAll(filepath.Join(dir, serviceDir), 0o700); err != nil {
		return fmt.Errorf("saving the snapshot: %w", err)
	}
	old, err := readIndex(dir)
	if err != nil {
		old = &index{} // unreadable or absent: everything is written anew
	}
	next := &index{Fleet: s.Fleet, Version: s.Version, Services: make(map[string]indexLine, len(s.Services))}
	lines := make([]indexLine, len(s.Services))
	var work errgroup.Group
	work.SetLimit(parallelism)
	for i, service := range s.Services {
		if line, ok := old.Services[service.Name]; ok && line.Version == service.Version && !slices.ContainsFunc(changed, named(service.Name)) {
			lines[i] = line
			continue
		}
		work.Go(func() (err error) {
			lines[i], err = writeService(dir, service)
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return fmt.Errorf("saving the snapshot: %w", err)
	}
	for i, service := range s.Services {
		next.Services[service.Name] = lines[i]
	}
	if err := writeIndex(dir, next); err != nil {
		return fmt.Errorf("saving the snapshot: %w", err)
	}
	return sweep(dir, next)
}

// LoadSnapshot reads the snapshot that dir holds. Unknown fields are ignored. Where a file cannot be
// read it returns the rest, with Version 0, and a [MissingError]; where nothing was ever saved, an error
// that is [fs.ErrNotExist]. The snapshot is nil only with the latter.
func LoadSnapshot(dir string) (*fleet.Snapshot, error) {
	in, err := readIndex(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no snapshot was saved in %s: %w", dir, err)
	}
	if err != nil {
		return &fleet.Snapshot{}, &MissingError{Err: err}
	}
	out := &fleet.Snapshot{Fleet: in.Fleet, Version: in.Version}
	missing := new(MissingError)
	for name, line := range in.Services {
		service, err := readService(dir, name, line)
		if err != nil {
			missing.Services = append(missing.Services, name)
			missing.Err = err
			continue
		}
		out.Services = append(out.Services, service)
	}
	slices.SortFunc(out.Services, func(a, b *fleet.Service) int { return strings.Compare(a.Name, b.Name) })
	if missing.Err == nil {
		return out, nil
	}
	slices.Sort(missing.Services)
	out.Version = 0
	return out, missing
}

func named(name string) func(*fleet.Service) bool {
	return func(s *fleet.Service) bool { return s.Name == name }
}

func serviceFile(name string, version uint64) string {
	return fmt.Sprintf("%s@%d.json", name, version)
}

func writeService(dir string, s *fleet.Service) (indexLine, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return indexLine{}, err
	}
	sum := sha256.Sum256(data)
	path := filepath.Join(dir, serviceDir, serviceFile(s.Name, s.Version))
	return indexLine{Version: s.Version, SHA256: hex.EncodeToString(sum[:])}, WriteFile(path, data)
}

func readService(dir, name string, line indexLine) (*fleet.Service, error) {
	data, err := os.ReadFile(filepath.Join(dir, serviceDir, serviceFile(name, line.Version)))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != line.SHA256 {
		return nil, fmt.Errorf("the file of service %s is not what was written: its checksum differs", name)
	}
	s := new(fleet.Service)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("the file of service %s: %w", name, err)
	}
	return s, nil
}

// writeIndex puts the index in place after the names of the services' files are on disk.
func writeIndex(dir string, in *index) error {
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if err := syncDir(filepath.Join(dir, serviceDir)); err != nil {
		return err
	}
	if err := WriteFile(filepath.Join(dir, indexFile), data); err != nil {
		return err
	}
	return syncDir(dir)
}

func readIndex(dir string) (*index, error) {
	data, err := os.ReadFile(filepath.Join(dir, indexFile))
	if err != nil {
		return nil, err
	}
	in := new(index)
	if err := json.Unmarshal(data, in); err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	return in, nil
}

// sweep deletes the files that the index does not name, temporary ones of a crash among them.
func sweep(dir string, in *index) error {
	keep := make(map[string]bool, len(in.Services))
	for name, line := range in.Services {
		keep[serviceFile(name, line.Version)] = true
	}
	entries, err := os.ReadDir(filepath.Join(dir, serviceDir))
	if err != nil {
		return fmt.Errorf("sweeping the saved snapshot: %w", err)
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(dir, serviceDir, e.Name())))
		}
	}
	return err
}

// WriteFile writes a file by temporary file, fsync and rename: a crash leaves the old one or the new one.
func WriteFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed, as it should
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
