package api_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/api"
)

func TestOneFolderHasOnePlace(t *testing.T) {
	p := place(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Dir(p.Data), link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	q, err := api.Locate(filepath.Join(link, ".shoal"))
	if err != nil || p != q {
		t.Errorf("by a link %+v, %v\nby its path %+v", q, err, p)
	}
	other, err := api.Locate(filepath.Join(link, "other"))
	if err != nil || other.Hub == p.Hub {
		t.Errorf("another data folder has the socket %s, %v", other.Hub, err)
	}
}

func TestALongRuntimeFolderIsLeftForAShortOne(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 90))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", long)
	p, err := api.Locate(t.TempDir())
	if err != nil || len(p.PeerNode) > api.MaxSocketPath || strings.HasPrefix(p.Runtime, long) {
		t.Errorf("Locate = %s, %v", p.PeerNode, err)
	}
}

func TestARunningFleetIsFoundFromAnotherEnvironment(t *testing.T) {
	p := place(t)
	if err := p.Prepare(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{p.Runtime, filepath.Dir(p.Runtime)} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v; want 0700", dir, info.Mode(), err)
		}
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	if q, err := api.Locate(p.Data); err != nil || q.Hub != p.Hub {
		t.Errorf("Locate = %s, %v; want %s", q.Hub, err, p.Hub)
	}
	if err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	if q, err := api.Locate(p.Data); err != nil || q.Hub == p.Hub {
		t.Errorf("after the fleet's end: %s, %v", q.Hub, err)
	}
}

func TestDataVersions(t *testing.T) {
	for _, tt := range []struct{ version, want string }{
		{"1\n", ""},
		{"2\n", ""},
		{"3\n", "has version 3, and this shoal reads up to version 2"},
		{"x\n", "no version"},
		{"0", "no version"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "VERSION"), []byte(tt.version), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, check := range []func(string) error{api.CheckData, api.InitData} {
			err := check(dir)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("version %q: %v; want %q", tt.version, err, tt.want)
			}
		}
	}
	fresh := filepath.Join(t.TempDir(), "a", "b")
	if err := api.CheckData(fresh); err != nil {
		t.Error(err)
	}
	if err := api.InitData(fresh); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(fresh, "VERSION")); string(b) != "2\n" {
		t.Errorf("VERSION is %q, %v", b, err)
	}
}

// TestOldDataIsRaised lets a hub take over a folder of the version before: whoever only looks leaves it as it is.
func TestOldDataIsRaised(t *testing.T) {
	for _, tt := range []struct{ had, has, want string }{
		{"1\n", "2\n", ""},
		{"2\n", "2\n", ""},
		{"3\n", "3\n", "use the newer shoal"},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "VERSION")
		if err := os.WriteFile(file, []byte(tt.had), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = api.InitData(dir)
		if b, _ := os.ReadFile(file); string(b) != tt.had {
			t.Errorf("who looks at version %q makes it %q", tt.had, b)
		}
		err := api.RaiseData(dir)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("raising version %q: %v; want %q", tt.had, err, tt.want)
		}
		if b, _ := os.ReadFile(file); string(b) != tt.has {
			t.Errorf("version %q is %q afterwards", tt.had, b)
		}
	}
}

func TestASocketThatAnswersIsNotTaken(t *testing.T) {
	p := place(t)
	if err := p.Prepare(); err != nil {
		t.Fatal(err)
	}
	l, err := api.Listen(p.Hub)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Listen(p.Hub); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Errorf("a second listener: %v", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close() // as a killed process leaves it
	again, err := api.Listen(p.Hub)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
