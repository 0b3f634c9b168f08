package control_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/control"
	"github.com/shoalrun/shoal/fleet"
)

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshot")
	if s, err := control.LoadSnapshot(dir); s != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the first save: %v %v", s, err)
	}
	c := open(t, newMemory())
	apply(t, c, put(service("api", "api-1"), service("web")))
	save(t, dir, c.Snapshot())
	apply(t, c, fleet.Change{Put: []fleet.Service{service("api", "api-2")}, Remove: []string{"web"}})
	save(t, dir, c.Snapshot())
	if files := files(t, dir); !slices.Equal(files, []string{"api@2.json"}) {
		t.Errorf("files %v", files)
	}
	// Another hub, with a fresh store, may use a version again for something else.
	other := open(t, newMemory())
	apply(t, other, put(service("api")))
	apply(t, other, put(service("api", "other-1")))
	s := other.Snapshot()
	if err := control.SaveSnapshot(dir, s, s.Services...); err != nil {
		t.Fatal(err)
	}
	if got, err := control.LoadSnapshot(dir); err != nil || summary(got) != summary(s) {
		t.Errorf("loaded %v %v", got, err)
	}
}

func save(t *testing.T, dir string, s *fleet.Snapshot) {
	t.Helper()
	if err := control.SaveSnapshot(dir, s); err != nil {
		t.Fatal(err)
	}
	got, err := control.LoadSnapshot(dir)
	if err != nil || summary(got) != summary(s) || got.Fleet != s.Fleet {
		t.Errorf("loaded %v %v", got, err)
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "services"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestLoadReportsWhatIsMissing(t *testing.T) {
	damage := map[string]func(path string) error{
		"gone":      os.Remove,
		"truncated": func(path string) error { return os.Truncate(path, 10) },
		"changed": func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, []byte(strings.ReplaceAll(string(data), "api-1", "api-9")), 0o600)
		},
	}
	for name, break_ := range damage {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := open(t, newMemory())
			apply(t, c, put(service("api", "api-1"), service("web")))
			save(t, dir, c.Snapshot())
			if err := break_(filepath.Join(dir, "services", "api@1.json")); err != nil {
				t.Fatal(err)
			}
			s, err := control.LoadSnapshot(dir)
			var missing *control.MissingError
			if !errors.As(err, &missing) || !slices.Equal(missing.Services, []string{"api"}) || summary(s) != "v0 web@1#16" && summary(s) != "v0 web@1#17" {
				t.Fatalf("loaded %v %v", s, err)
			}
			if err := control.SaveSnapshot(dir, c.Snapshot(), c.Snapshot().Services...); err != nil {
				t.Fatal(err)
			}
			save(t, dir, c.Snapshot())
		})
	}
}

func TestLoadDamagedIndexAndUnknownFields(t *testing.T) {
	dir := t.TempDir()
	c := open(t, newMemory())
	apply(t, c, put(service("api")))
	save(t, dir, c.Snapshot())
	path := filepath.Join(dir, "index.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(`{"invented_later":[1],`+string(data[1:])), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := control.LoadSnapshot(dir); err != nil || summary(s) != summary(c.Snapshot()) {
		t.Errorf("with an unknown field: %v %v", s, err)
	}
	if err := os.WriteFile(path, data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := control.LoadSnapshot(dir)
	var missing *control.MissingError
	if !errors.As(err, &missing) || len(missing.Services) != 0 || s.Version != 0 {
		t.Errorf("with half an index: %v %v", s, err)
	}
	save(t, dir, c.Snapshot())
}
