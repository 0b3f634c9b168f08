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

// OpenCredentials reads the key that is kept in dir, and makes it, and dir, where there is none. Several processes may do so at once.
func OpenCredentials(dir string) (CredentialKey, error) {
	path := filepath.Join(dir, credentialFile)
	key, err := readCredentials(path)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	made, err := writeCredentials(dir)
	if err != nil {
		return nil, err
	}
	defer os.Remove(made)
	if err := os.Link(made, path); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return readCredentials(path)
}

// writeCredentials writes a new key under a name of its own, so that the last step, a link, is all or nothing.
func writeCredentials(dir string) (path string, err error) {
	f, err := os.CreateTemp(dir, credentialFile+".*") // for its owner alone
	if err != nil {
		return "", err
	}
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails, by its documentation
	_, err = f.Write(key)
	return f.Name(), errors.Join(err, f.Close())
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
