//go:build unix

package pubsub

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The official Node client, from npm, runs nodeclient/suite.test.mjs.
func TestNodeClient(t *testing.T) {
	t.Parallel()
	dir := installNode(t)
	suite, err := os.ReadFile("nodeclient/suite.test.mjs")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "suite.test.mjs"), suite, 0o644))
	cmd := exec.CommandContext(t.Context(), "node", "--test", "--test-reporter=spec", "suite.test.mjs")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	must(t, err)
}

// installNode returns a folder with the client and what it needs, at the versions of nodeclient/package-lock.json. It is kept in the
// user's cache: the second time takes no time.
func installNode(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("there is no %s: apt-get install %s", program, map[string]string{"node": "nodejs", "npm": "npm"}[program])
		}
	}
	lock, err := os.ReadFile("nodeclient/package-lock.json")
	must(t, err)
	sum := sha256.Sum256(lock)
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "shoal-thirdparty", "nodeclient-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err == nil {
		return dir
	}
	must(t, os.MkdirAll(filepath.Dir(dir), 0o755))
	work, err := os.MkdirTemp(filepath.Dir(dir), "npm-")
	must(t, err)
	defer os.RemoveAll(work)
	out, err := exec.CommandContext(t.Context(), "nodeclient/install", work).CombinedOutput()
	if err != nil {
		missing(t, "npm cannot install the client: %v\n%s", err, out)
	}
	if err := os.Rename(work, dir); err != nil {
		if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil { // unless another run was quicker
			t.Fatal(err)
		}
	}
	return dir
}

// missing skips, or fails where the environment promises that nothing is missing.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("SHOAL_SKIPS") == "fail" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
