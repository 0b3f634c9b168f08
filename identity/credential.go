package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// CredentialKey is what the passwords of a fleet are made from, for protocols that know a user and a password and no
// certificate. It never leaves the machine of the hub. It may be used concurrently.
type CredentialKey []byte

const credentialFile = "credentials.key"

// OpenCredentials reads the key that is kept in dir, and makes one where there is none. Several processes may do so at once.
func OpenCredentials(dir string) (CredentialKey, error) {
	path := filepath.Join(dir, credentialFile)
	key, err := readCredentials(path)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	made := make([]byte, sha256.Size)
	_, _ = rand.Read(made) // never fails, by its documentation
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	defer os.Remove(temporary)
	if err := os.WriteFile(temporary, made, 0o600); err != nil {
		return nil, err
	}
	if err := os.Link(temporary, path); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return readCredentials(path)
}

func readCredentials(path string) (CredentialKey, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) != sha256.Size {
		return nil, fmt.Errorf("%s has %d bytes instead of %d: remove it, then `shoal down` and `shoal up`", path, len(key), sha256.Size)
	}
	return key, err
}

// Password returns the password of a user: a service, or the operator. It is the same for as long as the key is.
func (k CredentialKey) Password(user string) string {
	mac := hmac.New(sha256.New, k)
	fmt.Fprintf(mac, "password of %s", user)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Admits reports whether password is user's.
func (k CredentialKey) Admits(user, password string) bool {
	return hmac.Equal([]byte(k.Password(user)), []byte(password))
}
