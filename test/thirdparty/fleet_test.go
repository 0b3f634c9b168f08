// Package thirdparty runs services that nobody here wrote, unmodified, as fleets: built from the Go
// module proxy, with manifests that lie outside their sources, under load while each is restarted.
package thirdparty

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// world is one running fleet.
type world struct {
	*testing.T
	dir, shoal string
	env        []string
	gateway    string
}

// service is a program, and the manifest that somebody else writes for it.
type service struct {
	name     string
	binary   string
	manifest string
}

// start makes a repository of each service's binary and starts the fleet.
func start(t *testing.T, services ...service) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "tp") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, dir: dir, shoal: filepath.Join(dir, "shoal"+exe())}
	t.Cleanup(func() { os.RemoveAll(dir) })
	run(t, ".", []string{"CGO_ENABLED=0"}, "go", "build", "-o", w.shoal, "github.com/shoalrun/shoal/cmd/shoal")
	w.env = []string{"XDG_RUNTIME_DIR=" + filepath.Join(dir, "run"), "XDG_CACHE_HOME=" + filepath.Join(dir, "cache"), "NO_COLOR=1"}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	work := "fleet: strangers\nrepos:\n" // ports that are taken move to free ones
	for _, s := range services {
		w.repository(s)
		work += fmt.Sprintf("  - {path: ./%s, manifest: manifests/%s.yaml}\n", s.name, s.name)
	}
	w.write("shoal.work", work)
	t.Cleanup(w.end)
	w.run("up", "-d")
	w.settled(len(services))
	return w
}

// repository holds the program as its authors made it, and no manifest.
func (w *world) repository(s service) {
	w.Helper()
	w.write(filepath.Join("manifests", s.name+".yaml"), s.manifest)
	text, err := os.ReadFile(s.binary)
	if err != nil {
		w.Fatal(err)
	}
	repo := filepath.Join(w.dir, s.name)
	if err := os.Mkdir(repo, 0o755); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(repo, filepath.Base(s.binary)), text, 0o755); err != nil {
		w.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "."},
		{"-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false", "commit", "-q", "-m", "as it is"}} {
		run(w.T, repo, nil, "git", args...)
	}
}

func (w *world) write(name, text string) {
	w.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.Fatal(err)
	}
}

func (w *world) run(args ...string) string {
	w.Helper()
	return run(w.T, w.dir, w.env, w.shoal, args...)
}

// settled checks that every service is ready, by its host name and not by a convention.
func (w *world) settled(services int) {
	w.Helper()
	s := w.status()
	w.gateway = s.Gateway
	if len(s.Services) != services {
		w.Fatalf("status has %d services", len(s.Services))
	}
	for _, service := range s.Services {
		if service.State != fleet.ServiceReady {
			w.Fatalf("%s is %s: %s", service.Name, service.State, service.Failure)
		}
		if service.Mode != fleet.Netns {
			w.Skip("sidecars here are in explicit mode, in which host names in flags are not captured: `shoal doctor` says what is missing")
		}
	}
}

func (w *world) status() fleet.Status {
	w.Helper()
	var s fleet.Status
	if err := json.Unmarshal([]byte(w.run("status", "--json")), &s); err != nil {
		w.Fatal(err)
	}
	return s
}

// end takes the fleet down; of a failed test it shows what the services wrote last.
func (w *world) end() {
	if w.Failed() {
		for _, args := range [][]string{{"status"}, {"why"}, {"logs", "--tail", "20"}} {
			out, _ := try(w.dir, w.env, w.shoal, args...)
			w.Logf("shoal %s\n%s", strings.Join(args, " "), out)
		}
	}
	if out, err := try(w.dir, w.env, w.shoal, "down"); err != nil && !w.Failed() {
		w.Errorf("down: %v\n%s", err, out)
	}
}

// get calls an exposed service at the gateway and returns the body of a good answer.
func (w *world) get(method, host, path, body string) string {
	w.Helper()
	req, err := http.NewRequest(method, "http://"+w.gateway+path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		w.Fatalf("%s %s%s: %s %v\n%s", method, host, path, resp.Status, err, text)
	}
	return string(text)
}

// expectEdges checks that calls went from each caller to each callee, and that none failed: a
// frontend may hide from its clients what failed behind it.
func (w *world) expectEdges(edges []string) {
	w.Helper()
	seen := w.settledEdges()
	for _, name := range edges {
		s := seen[name]
		w.Logf("%s: %d requests, %d errors", name, s.Requests, s.Errors)
		if s.Requests == 0 || s.Errors > 0 {
			w.Errorf("%s: %d requests, %d errors; want some and none", name, s.Requests, s.Errors)
		}
	}
}

// settledEdges waits until the totals stand still: the hub hears of the last calls a little later.
func (w *world) settledEdges() map[string]fleet.EdgeStats {
	w.Helper()
	seen := w.edges()
	for range 30 {
		time.Sleep(500 * time.Millisecond)
		now := w.edges()
		if maps.Equal(seen, now) {
			return now
		}
		seen = now
	}
	return seen
}

// edges are the totals by caller and callee.
func (w *world) edges() map[string]fleet.EdgeStats {
	w.Helper()
	seen := map[string]fleet.EdgeStats{}
	for _, e := range w.status().Edges {
		s := seen[e.From+" -> "+e.To]
		s.Requests, s.Errors = s.Requests+e.Requests, s.Errors+e.Errors
		seen[e.From+" -> "+e.To] = s
	}
	return seen
}
