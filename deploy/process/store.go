package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// record is what a node keeps of an instance: enough to restart it without its hub.
type record struct {
	Assignment fleet.Assignment `json:"assignment"`
	Ready      bool             `json:"ready,omitempty"` // was ready once: from then on it is restarted for ever
	Started    time.Time        `json:"started,omitzero"`
	Restarts   int              `json:"restarts,omitempty"`
	// Final is the status of an instance that was given up, or of a `before` that has ended.
	Final *fleet.InstanceStatus `json:"final,omitempty"`
}

// store keeps one JSON file per instance. Files are replaced whole and reach the disk before save
// returns, so that a power cut leaves the old or the new one.
type store struct{ dir string }

func openStore(dir string) (store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return store{}, fmt.Errorf("process: cannot keep assignments: %w", err)
	}
	return store{dir}, nil
}

// checkID refuses an instance id that is no file name.
func checkID(id string) error {
	if id == "" || strings.HasPrefix(id, ".") || strings.ContainsAny(id, `/\:`) {
		return fmt.Errorf("process: %q cannot be an instance's id: it names a file", id)
	}
	return nil
}

func (s store) path(id string) string { return filepath.Join(s.dir, id+".json") }

func (s store) save(r record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = s.replace(s.path(r.Assignment.Instance), data)
	}
	if err != nil {
		return fmt.Errorf("process: assignment of %s cannot be kept, so it is not started: %w", r.Assignment.Instance, err)
	}
	return nil
}

func (s store) replace(path string, data []byte) error {
	f, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already if all went well
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(s.dir)
}

func (s store) remove(id string) error {
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("process: assignment of %s cannot be forgotten: %w", id, err)
	}
	return nil
}

// load reads all records. One that cannot be read is removed: the hub knows what it said.
func (s store) load() ([]record, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("process: assignments cannot be read: %w", err)
	}
	var all []record
	for _, e := range entries {
		id, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord {
			if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil { // a save that was cut short
				return nil, err
			}
			continue
		}
		var r record
		data, err := os.ReadFile(s.path(id))
		if err != nil || json.Unmarshal(data, &r) != nil || r.Assignment.Instance != id {
			if err := s.remove(id); err != nil {
				return nil, err
			}
			continue
		}
		all = append(all, r)
	}
	return all, nil
}
