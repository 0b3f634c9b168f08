package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// MaxSocketPath is how many bytes a Unix socket's path may have: sun_path of unix(7) holds 108,
// the last of which ends the string.
const MaxSocketPath = 107

// maxRuntime leaves room in a socket's path for `/shim/` and an instance's name of 40 bytes.
const maxRuntime = MaxSocketPath - len("/shim/") - 40 - len(".sock")

// Paths are the places of one fleet on this machine: its data folder, and its runtime folder with
// the sockets.
type Paths struct {
	Data    string // absolute
	Runtime string // 0700, the user's own

	Hub, Node         string // the operator API
	Link              string // shoal.peer.v1, where the hub awaits nodes
	PeerHub, PeerNode string // the data path between peers
	Shims             string // folder: one socket per instance

	HubDir, NodeDir string // what each process stores
	Up              string // file: what is up, for a hub that starts again; there from `up` to `down`
	HubLog, NodeLog string // what each process says
	Logs, State     string // folders: per service
}

// Locate returns the paths of the fleet that keeps its data in the folder data, which need not exist
// yet. The runtime folder is the one that a running fleet noted in the data folder, else one named
// by a hash of the data folder's path in $XDG_RUNTIME_DIR/shoal or /tmp/shoal-UID. A folder there
// that belongs to another user is an error: whoever made it could answer in the fleet's place.
func Locate(data string) (Paths, error) {
	data, err := resolve(data)
	if err != nil {
		return Paths{}, fmt.Errorf("the data folder %s cannot be found: %w", data, err)
	}
	runtime, err := runtimeOf(data)
	if err != nil {
		return Paths{}, err
	}
	in := func(name string) string { return filepath.Join(runtime, name) }
	at := func(name string) string { return filepath.Join(data, name) }
	return Paths{
		Data: data, Runtime: runtime,
		Hub: in("hub.sock"), Node: in("node.sock"), Link: in("link.sock"),
		PeerHub: in("peer-hub.sock"), PeerNode: in("peer-node.sock"), Shims: in("shim"),
		HubDir: at("hub"), NodeDir: at("node"), Up: at("up.json"), HubLog: at("hub.log"), NodeLog: at("node.log"),
		Logs: at("logs"), State: at("state"),
	}, nil
}

// resolve makes path absolute and free of symbolic links, as far as it exists, so that every way to
// name one folder finds one fleet.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path, err
	}
	for dir, rest := abs, ""; ; dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest) {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !os.IsNotExist(err) || dir == filepath.Dir(dir) {
			return abs, err
		}
	}
}

// runtimeOf returns the runtime folder for a data folder: the noted one while it stands, else the
// one that the environment gives.
func runtimeOf(data string) (string, error) {
	if noted, err := os.ReadFile(filepath.Join(data, noteFile)); err == nil {
		dir := strings.TrimSpace(string(noted))
		if _, err := os.Stat(dir); err == nil {
			return dir, checkNoted(dir, data)
		}
	}
	sum := sha256.Sum256([]byte(data))
	base := runtimeBase()
	if err := checkOwner(base); err != nil {
		return "", err
	}
	return filepath.Join(base, hex.EncodeToString(sum[:6])), nil
}

// runtimeBase returns $XDG_RUNTIME_DIR/shoal where that is the user's and short enough, else a
// folder named after the user in the folder for temporary files.
func runtimeBase() string {
	xdg := os.Getenv("XDG_RUNTIME_DIR")
	base := filepath.Join(xdg, "shoal")
	const hash = len("/0123456789ab")
	if filepath.IsAbs(xdg) && len(base)+hash <= maxRuntime && usable(xdg) {
		return base
	}
	return filepath.Join(temporary(), "shoal-"+userName())
}

// usable reports whether dir is a folder of this user's: after `sudo` it may be another's.
func usable(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir() && checkOwner(dir) == nil
}

// noteFile, in the data folder, holds the runtime folder's path: a shell with another environment,
// or root, finds the fleet by it.
const noteFile = "runtime"

// Prepare makes the runtime folder, 0700, and the data folder with its version, and notes the one in
// the other. Hub and node call it when they start; it may be called again at any time.
func (p Paths) Prepare() error {
	if err := InitData(p.Data); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(p.Runtime), p.Runtime, p.Shims} {
		if err := makePrivate(dir); err != nil {
			return err
		}
	}
	return writeFile(filepath.Join(p.Data, noteFile), p.Runtime+"\n")
}

// ErrUnwanted is why a hub or node in the background ends as soon as it has started: it was on its way
// when the fleet was stopped.
var ErrUnwanted = errors.New("the fleet is not meant to run: `shoal down` has stopped it; `shoal up -d` starts it")

// Want notes that the fleet is meant to run in the background, until [Paths.Forget].
func (p Paths) Want() error {
	f, err := os.OpenFile(p.Up, os.O_WRONLY|os.O_CREATE, 0o600) // what a hub has written there stays
	if err != nil {
		return err
	}
	return f.Close()
}

// Forget notes that the fleet is not meant to run any more. Hub and node look for the note once they
// hold their locks, so that after Forget each of them either ends by itself or is seen to hold its lock.
func (p Paths) Forget() error {
	if err := os.Remove(p.Up); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// CheckWanted returns [ErrUnwanted] where the fleet is not meant to run in the background.
func (p Paths) CheckWanted() error {
	if _, err := os.Stat(p.Up); errors.Is(err, fs.ErrNotExist) {
		return ErrUnwanted
	}
	return nil
}

// Remove removes the runtime folder, once nothing of the fleet runs.
func (p Paths) Remove() error { return os.RemoveAll(p.Runtime) }

// makePrivate makes a folder that only its owner can enter, or checks that one is so.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the runtime folder cannot be made: %w", err)
	}
	if err := checkOwner(dir); err != nil {
		return err
	}
	// MkdirAll leaves the mode of a folder that was there as it is.
	return os.Chmod(dir, 0o700)
}
