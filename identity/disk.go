package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A source's directory holds two files. The bundle is written first: a crash between the two leaves
// more trust than needed, never a certificate without its root.
const (
	identityFile = "identity.pem" // private key, leaf, root; mode 0600
	bundleFile   = "bundle.json"
)

// writeDir replaces both files.
func (h *held) writeDir(dir string) error {
	der, err := x509.MarshalPKCS8PrivateKey(h.key)
	if err != nil {
		return err
	}
	bundle, err := json.MarshalIndent(h.trust.bundle, "", "  ")
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	text = append(text, encodeChain(h.chain...)...)
	err = os.MkdirAll(dir, 0o700)
	if err == nil {
		err = replaceFile(filepath.Join(dir, bundleFile), append(bundle, '\n'))
	}
	if err == nil {
		err = replaceFile(filepath.Join(dir, identityFile), text)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("keeping this process's identity (the last one stays in force): %w", err)
	}
	return nil
}

// readDir reads both files; nil where neither exists.
func readDir(dir string) (*held, error) {
	text, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // at most the bundle of a join that was cut off
	}
	if err != nil {
		return nil, fmt.Errorf("reading this process's identity: %w", err)
	}
	bundle, err := os.ReadFile(filepath.Join(dir, bundleFile))
	if err != nil {
		return nil, damaged(dir, err)
	}
	h, err := parseHeld(text, bundle)
	if err != nil {
		return nil, damaged(dir, err)
	}
	return h, nil
}

func parseHeld(text, bundle []byte) (*held, error) {
	var b Bundle
	if err := json.Unmarshal(bundle, &b); err != nil {
		return nil, fmt.Errorf("%s: %w", bundleFile, err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s does not begin with a private key", identityFile)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, errors.Join(fmt.Errorf("the private key in %s cannot be read", identityFile), err)
	}
	chain, err := decodeChain(rest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", identityFile, err)
	}
	return newHeld(key, chain, b)
}

func damaged(dir string, err error) error {
	return fmt.Errorf("the identity in %s is damaged (%w): on a node, delete that folder and join again with a token to rejoin from the hub; "+
		"on the hub, delete it and start again", dir, err)
}

// replaceFile writes a file that its owner alone may read, by temporary file, fsync and rename.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*") // mode 0600
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
