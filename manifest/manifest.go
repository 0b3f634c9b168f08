// Package manifest reads, checks and explains the two files that a user writes: shoal.yaml, which
// declares one service, and shoal.work, which says where the services of one environment are.
//
// It is pure: text in, values and errors out, no file is opened. It stands at the beginning of the
// walk of a change (workspace reads the files, this package says what they mean, deploy and control
// act on it). One table of keys, in keys.go, drives the parser, the spelling hints, the JSON Schema
// and the reference in docs/manifest.md, so that the four cannot differ.
//
// Everything here is safe for concurrent use; a [Manifest] and a [Workspace] are plain values that
// nobody writes to once they were returned.
package manifest

import (
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// The names of the two files.
const (
	File          = "shoal.yaml"
	WorkspaceFile = "shoal.work"
)

// Defaults of keys that a manifest may leave out.
const (
	DefaultGrace     = 10 * time.Second
	DefaultStartup   = 60 * time.Second
	DefaultInstances = 1
)

// Manifest is a shoal.yaml after validation and defaults: what the data path and the operator need
// (the embedded [fleet.Manifest]), and how to build and run the service.
type Manifest struct {
	fleet.Manifest

	Build   string            // run in the build tree by /bin/sh -c; empty: nothing to build
	Run     string            // never empty, unless the manifest is that of an external ([External])
	Dev     string            // replaces Run in edit mode; empty: Run
	Before  string            // once per release, before its first instance takes traffic
	Workers map[string]string // more processes of the same release: name to command

	Env       []fleet.EnvVar // in the order of the file
	Instances int            // 1 to 100
	Nodes     []string       // that it may run on; empty: any
	Startup   fleet.Duration // until a new instance is healthy; 1s to 1h, 60s where the file says nothing
	Grace     fleet.Duration // between TERM and KILL; 0s to 1h, 10s where the file says nothing

	at map[string]position // where the file says it: `calls.inventory`, `listen`, …
}

type position struct{ line, column int }

// Parse reads a shoal.yaml. file is the path as errors and refusals show it (`orders/shoal.yaml`).
// An error is [Errors] and holds every mistake of the file, in the order of the file.
func Parse(file string, data []byte) (*Manifest, error) {
	m := &Manifest{Instances: DefaultInstances, Startup: fleet.Duration(DefaultStartup), Grace: fleet.Duration(DefaultGrace)}
	m.File = file
	p := &parse{file: file, manifest: m}
	p.read(data, manifestKeys())
	p.checkManifest()
	if err := p.errors.sorted(); err != nil {
		return nil, err
	}
	m.at = p.at
	return m, nil
}

// External returns the manifest of a service that runs outside Shoal and has none of its own: it
// listens on the port of its address and calls nobody.
func (e External) Manifest(file string) *Manifest {
	m := &Manifest{Instances: DefaultInstances}
	m.File, m.Service = file, e.Service
	m.Ports = []fleet.Port{{Number: e.Port, Protocol: e.Protocol}}
	m.at = map[string]position{"service": {e.Line, e.Column}}
	return m
}
