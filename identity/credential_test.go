package identity_test

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/shoalrun/shoal/identity"
)

func TestCredentials(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hub")
	keys := make([]identity.CredentialKey, 8)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			key, err := identity.OpenCredentials(dir)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	all.Wait()
	for _, k := range keys {
		if !slices.Equal(k, keys[0]) {
			t.Fatal("two processes made two keys")
		}
	}
	k := keys[0]
	if !k.Admits("orders", k.Password("orders")) || k.Admits("web", k.Password("orders")) || k.Admits("orders", "") {
		t.Error("a password is its user's alone")
	}
	if err := os.WriteFile(filepath.Join(dir, "credentials.key"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.OpenCredentials(dir); err == nil {
		t.Error("a key of five bytes was taken")
	}
}
