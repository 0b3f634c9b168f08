package sidecar

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// record is what a later process must know of a shim, in R/shim/INSTANCE.json. It is this process's
// own word: a shim is not asked who its application is. Unknown fields are ignored.
type record struct {
	Assignment fleet.Assignment  `json:"assignment"`
	Env        []string          `json:"env"`                 // redacted
	Ports      map[uint16]uint16 `json:"ports,omitempty"`     // explicit mode: declared -> where it listens
	Listeners  []listener        `json:"listeners,omitempty"` // explicit mode, in the shim's order
	V6         bool              `json:"v6,omitempty"`        // netns mode: the namespace has IPv6
}

func (r *record) netns() bool { return r.Assignment.Mode == fleet.Netns }

// maxSocketPath is the longest path of a Unix socket here: sun_path has 104 bytes on some systems, with
// a zero at the end.
const maxSocketPath = 103

// socketPath returns R/shim/INSTANCE.sock, or, where that is too long for a socket, a digest of it.
func (m *Manager) socketPath(instance string) string {
	path := filepath.Join(m.cfg.RuntimeDir, "shim", instance+".sock")
	if len(path) <= maxSocketPath {
		return path
	}
	sum := sha256.Sum256([]byte(instance))
	return filepath.Join(m.cfg.RuntimeDir, "shim", hex.EncodeToString(sum[:8])+".sock")
}

func (m *Manager) recordPath(instance string) string {
	return filepath.Join(m.cfg.RuntimeDir, "shim", instance+".json")
}

func (m *Manager) save(r *record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := m.recordPath(r.Assignment.Instance)
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// records returns what earlier processes left. What cannot be read names no shim that could be adopted.
func (m *Manager) records() ([]*record, error) {
	paths, err := filepath.Glob(filepath.Join(m.cfg.RuntimeDir, "shim", "*.json"))
	if err != nil {
		return nil, err
	}
	var found []*record
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		r := new(record)
		if err == nil {
			err = json.Unmarshal(b, r)
		}
		if err != nil || r.Assignment.Instance != strings.TrimSuffix(filepath.Base(path), ".json") {
			_ = os.Remove(path)
			continue
		}
		found = append(found, r)
	}
	return found, nil
}

func (m *Manager) removeRecord(instance string) {
	_ = os.Remove(m.recordPath(instance))
	_ = os.Remove(m.socketPath(instance))
}
